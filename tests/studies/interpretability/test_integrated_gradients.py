import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from phenoscope import models
from phenoscope.studies.interpretability import integrated_gradients as module

study = module.study


@pytest.mark.parametrize("kind", [module.Tournament, module.Chain])
@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (1, 1, 5, 7), (2, 3, 2, 2)])
def test_rewired_pooling_is_max_pooling(kind, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    # a + (b - a) may round where b alone does not
    torch.testing.assert_close(kind()(x), functional.max_pool2d(x, 2), rtol=0, atol=1e-15)


def test_only_pooling_of_two_by_two_pixels_is_rewired():
    net = nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 2), (2, 2))))
    copied = module.with_pooling(net, module.Chain)
    assert [type(each) for each in (copied[0], copied[1][0], copied[1][1])] == [
        module.Chain, nn.MaxPool2d, module.Chain,
    ]  # fmt: skip
    assert type(net[0]) is nn.MaxPool2d


def test_the_maps_of_a_wiring_dependent_method_differ_and_those_of_the_others_do_not():
    net = models.cnn((1, 8, 8), 3, width=(4, 4), pool=(1, 2), hidden=(8,), generator=0)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    differences, outputs = module.rewired(net, x, torch.full((1, 8, 8), 0.1) * x[0], net(x).argmax(1))
    integrated, deeplift, _ = differences.mean(1)
    assert outputs < 1e-12 and integrated < 1e-12  # float64: rounding alone
    assert deeplift > 0.005


def test_a_network_without_such_pooling_leaves_two_claims_out():
    net = models.mlp((1, 8, 8), 3, width=8, depth=1, generator=0)
    differences, _ = module.rewired(net, torch.rand(4, 1, 8, 8), torch.zeros(1, 8, 8), torch.zeros(4, dtype=torch.long))
    assert np.isnan(differences).all() and differences.shape == (3, 4)
    found = result(difference=result().difference * np.nan)
    for claim in ("implementation-invariance-gap", "implementation-invariance-ig"):
        assert "rewire" in study.observables[claim](found).attrs["not_applicable"]


def result(**changes):
    gap = np.zeros((2, 2, 2, 3))
    gap[:, 0, 1] = [[0.01, 0.02, 0.9], [0.03, 0.01, 0.02]]
    difference = np.zeros((2, 3, 3))
    difference[:, 0], difference[:, 1] = 0.001, [[0.1, 0.2, 0.3], [0.2, 0.2, 0.2]]
    found = xr.Dataset(
        {
            "gap": (("seed", "rule", "node_count", "image"), gap),
            "gradient_share": (("seed", "image"), [[0.5, 0.1, 0.3], [0.2, 0.4, 0.9]]),
            "probability": (("seed", "image"), [[0.9, 0.999, 0.995], [0.999, 0.5, 0.5]]),
            "difference": (("seed", "attribution", "image"), difference),
        },
        {"seed": [0, 1], "rule": list(module.RULES), "node_count": [20, 50], "attribution": list(module.METHODS)},
    )
    return found.assign(changes)


def test_the_observables_are_what_the_claims_say():
    observe = study.observables
    np.testing.assert_allclose(observe["few-steps"](result()), [0.02, 0.02])
    np.testing.assert_allclose(observe["saturated-gradient"](result()), [0.2, 0.2])
    gap = observe["implementation-invariance-gap"](result())
    assert gap.dims == ("seed",)
    np.testing.assert_allclose(gap, [0.199, 0.199])
    alone = observe["implementation-invariance-ig"](result())
    assert alone.dims == () and float(alone) == pytest.approx(0.001)
    assert "50 nodes" in observe["few-steps"](result().sel(node_count=[20])).attrs["not_applicable"]
    unsure = result(probability=result().probability * 0.9)
    assert "certain of none" in observe["saturated-gradient"](unsure).attrs["not_applicable"]
