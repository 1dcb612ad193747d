import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import init_gaussian


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Linear(300, 200), 300),
        (nn.Conv1d(8, 200, 5), 40),
        (nn.Conv2d(8, 128, 3, groups=4), 18),
        (nn.Conv3d(2, 99, 3), 54),
    ],
)
def test_variances_are_those_asked_for(layer, fan_in):
    init_gaussian(layer, sigma_w2=3.0, sigma_b2=0.25, generator=0)
    for values, variance in ((layer.weight, 3.0 / fan_in), (layer.bias, 0.25)):
        # the sample variance of n normal values has relative standard deviation sqrt(2 / n): 5 of them
        assert values.var().item() == pytest.approx(variance, rel=5 * (2 / values.numel()) ** 0.5)


def test_zero_variance_is_zero_exactly_and_norms_stay():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    nn.init.constant_(network[1].weight, 7.0)
    init_gaussian(network, sigma_b2=0.0, generator=0)
    assert not network[0].bias.any() and (network[1].weight == 7).all()


def test_the_dtype_stays_and_the_seed_decides():
    one, same = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    init_gaussian(one, generator=3)
    init_gaussian(same, generator=3)
    assert one.weight.dtype == torch.float64 and torch.equal(one.weight, same.weight)
    assert one.weight.requires_grad and one.weight.grad_fn is None


def test_nothing_to_draw_and_negative_variances_are_refused():
    with pytest.raises(InputError, match="no linear"):
        init_gaussian(nn.ReLU())
    with pytest.raises(InputError, match="sigma_w2"):
        init_gaussian(nn.Linear(2, 2), sigma_w2=-1.0)
