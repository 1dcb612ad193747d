import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import measure, models
from phenoscope.core.errors import InputError

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3


def bias_free(outputs=3):
    torch.manual_seed(0)
    first, second, last = (nn.Linear(*size, bias=False) for size in ((5, 7), (7, 4), (4, outputs)))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def test_the_margin_is_the_multi_margin_of_torch_seen_from_the_other_side():
    net = models.mlp((5,), 3, width=8, generator=1)
    found = measure.margin(net, (X, Y), chunk=7)
    outputs = net(X).detach()
    pairs = zip(outputs, Y.tolist(), strict=True)
    others = torch.stack([row[[c for c in range(3) if c != label]].max() for row, label in pairs])
    torch.testing.assert_close(found, outputs[torch.arange(30), Y] - others)
    assert torch.equal(found > 0, outputs.argmax(1) == Y)
    two = nn.Linear(5, 2)  # with two classes the hinge of torch is max(0, 1 - margin) / 2
    loss = functional.multi_margin_loss(two(X), Y % 2)
    torch.testing.assert_close((1 - measure.margin(two, (X, Y % 2))).clamp(min=0).mean() / 2, loss.detach())


def test_one_output_counts_by_the_sign_of_its_label():
    net = bias_free(1)
    signs = torch.where(Y > 0, 1, -1)
    torch.testing.assert_close(measure.margin(net, (X, signs)), signs * net(X)[:, 0].detach())
    assert torch.equal(measure.margin(net, (X, (signs + 1) // 2)), measure.margin(net, (X, signs)))


def test_the_normalized_margin_does_not_see_scales_of_layers_or_inputs():
    net, other = bias_free(), bias_free()
    before = measure.normalized_margin(net, (X, Y))
    with torch.no_grad():
        other[0].weight.mul_(3)
        other[2].weight.mul_(0.1)
        other[4].weight.mul_(20)
    torch.testing.assert_close(measure.normalized_margin(other, (5 * X, Y)), before)
    assert not torch.allclose(measure.margin(other, (X, Y)), measure.margin(net, (X, Y)))


def test_a_linear_map_with_rows_of_norm_one_has_its_margin_over_the_norm_of_the_input():
    net = nn.Linear(5, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3, 5))
    expected = measure.margin(net, (X, Y)) / X.norm(dim=1)
    torch.testing.assert_close(measure.normalized_margin(net, (X, Y)), expected)


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(InputError, match="labels go from 0 to 2"):
        measure.margin(nn.Linear(5, 2), (X, Y))
    with pytest.raises(InputError, match="one output"):
        measure.margin(nn.Linear(5, 1), (X, Y))
    with pytest.raises(InputError, match="no weights"):
        measure.normalized_margin(nn.Identity(), (X, Y))
