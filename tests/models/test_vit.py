import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import vit
from phenoscope.models.vit import Attention


def test_attention_is_torchs_own():
    ours, theirs = Attention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_without_positions_the_order_of_patches_does_not_matter():
    network = vit((1, 8, 8), 4, patch=4, width=16, depth=2, generator=0).double().eval()
    with torch.no_grad():
        network.positions.zero_()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    moved = x.roll(4, 3)  # by one patch
    torch.testing.assert_close(network(moved), network(x))


def test_parameters_are_counted_as_published():
    # ViT-Tiny, 192 wide, 12 deep, on 224x224 images in patches of 16: 5.7 million (Touvron et al., ICML 2021)
    network = vit((3, 224, 224), 1000, width=192, depth=12, heads=3, patch=16, generator=0)
    assert sum(p.numel() for p in network.parameters()) == 5_717_416


@pytest.mark.parametrize("knobs", [{"norm": None}, {"dropout": 0.1, "mlp_width": 5}, {"activation": "relu"}])
def test_knobs(knobs):
    network = vit((3, 8, 12), 5, width=8, heads=2, depth=1, **knobs, generator=0)
    assert network(torch.zeros(1, 3, 8, 12)).shape == (1, 5)
    assert not network.token.any() and 0.01 < network.positions.std() < 0.03


@pytest.mark.parametrize("knobs", [{"patch": 3}, {"width": 10}, {"norm": "batch"}, {"depth": 0}, {"dropout": -0.1}])
def test_bad_knobs_are_refused(knobs):
    with pytest.raises(InputError):
        vit((1, 8, 8), 10, **knobs)
