import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, one_shot


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 10))


@pytest.mark.parametrize("density", [0.8, 0.35, 0.05])
def test_the_layerwise_masks_are_those_of_torchs_l1_pruning(density):
    theirs = net()
    for module in theirs:
        if hasattr(module, "weight"):
            torch_prune.l1_unstructured(module, "weight", amount=1 - density)
    assert one_shot(net(), density=density, scope="layer") == Masks.from_torch(theirs)


def test_the_global_masks_are_those_of_torchs_global_pruning():
    theirs = net()
    places = [(module, "weight") for module in theirs if hasattr(module, "weight")]
    torch_prune.global_unstructured(places, pruning_method=torch_prune.L1Unstructured, amount=0.9)
    assert one_shot(net(), density=0.1) == Masks.from_torch(theirs)


def test_pruning_on_only_takes_from_what_is_left():
    model = net()
    first = one_shot(model, density=0.5)
    other = nn.Sequential(*model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    second = one_shot(other, density=0.2, within=first)
    assert second & first == second
    assert sum(second.counts.values()) == round(0.2 * sum(mask.numel() for mask in first.values()))


def test_a_network_without_weights_is_refused():
    with pytest.raises(InputError, match="could be pruned"):
        one_shot(nn.ReLU(), density=0.5)
