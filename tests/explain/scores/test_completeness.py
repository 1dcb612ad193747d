import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.explain import completeness, deeplift, gradient_x_input, integrated_gradients


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).double()


def test_the_gap_is_the_sum_minus_the_change_of_the_output():
    net, map_ = network(), torch.randn(5, 6).double()
    expected = map_.sum(1) - (net(X)[:, 1] - net(torch.ones(5, 6).double())[:, 1])
    torch.testing.assert_close(completeness(net, X, map_, 1, baseline=1.0, chunk=2), expected.detach())


def test_complete_methods_have_none_and_gradient_times_input_has_one():
    net = network()
    for result in (deeplift(net, X), integrated_gradients(net, X, steps=300, rule="midpoint")):
        gap = completeness(net, X, result.values)
        torch.testing.assert_close(gap, result.gap)
        assert gap.abs().max() < 0.01 * result.change.abs().max()  # the midpoint sum's own error
    assert completeness(net, X, gradient_x_input(net, X)).abs().max() > 0.05  # biases are left out


def test_an_attribution_of_other_inputs_is_refused():
    with pytest.raises(InputError, match="5 inputs need as many"):
        completeness(network(), X, torch.zeros(4, 6))
