import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import gapnet


def test_the_bench_net_has_the_bench_layers_and_maps_of_8x8():
    network = gapnet(generator=0)
    assert list(network._modules) == [
        *("conv1", "norm1", "act1", "conv2", "norm2", "act2", "pool", "conv3", "norm3", "act3"),
        *("mean", "flatten", "logits"),
    ]
    assert (network.conv1.kernel_size, network.conv1.stride) == ((5, 5), (2, 2))
    x = torch.zeros(2, 3, 32, 32)
    assert network[:10](x).shape == (2, 64, 8, 8)
    assert gapnet(pool=False, generator=0)[:9](x).shape == (2, 64, 16, 16)
    assert network(x).shape == (2, 5)


def test_scores_are_the_mean_of_scores_at_every_place():
    network = gapnet(generator=0).eval().double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    maps = torch.einsum("ck,nkhw->nchw", network.logits.weight, network[:10](x))
    torch.testing.assert_close(maps.mean((2, 3)) + network.logits.bias, network(x))


def test_global_max_and_other_widths():
    network = gapnet((1, 16, 16), 4, width=(24, 48, 48), head="max", norm=None, generator=0)
    assert isinstance(network.max, nn.AdaptiveMaxPool2d) and network.conv1.bias is not None
    assert network(torch.zeros(1, 1, 16, 16)).shape == (1, 4)


@pytest.mark.parametrize("knobs", [{"width": (3,)}, {"head": "flatten"}, {"shape": (3, 3, 3)}])
def test_bad_knobs_are_refused(knobs):
    with pytest.raises(InputError):
        gapnet(**knobs)
