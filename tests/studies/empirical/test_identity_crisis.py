import functools

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data, train
from phenoscope.lab.map import Lab
from phenoscope.studies.empirical import identity_crisis as module

OBSERVABLES = module.study.observables


def result(fitted=((True, True, True), (True, True, False)), depths=(1, 14)):
    same = [[[0.99, 0.9], [0.98, 0.85], [0.97, 0.95]], [[0.5, 0.1], [0.4, 0.3], [0.9, 0.9]]]
    constant = [[[0.5, 0.0], [0.5, 0.05], [0.5, 0.05]], [[0.8, 0.9], [0.8, 0.1], [0.1, 0.1]]]
    dims = ("depth", "seed", "probe")
    return xr.Dataset(
        {
            "corr_identity": (dims, np.array(same)),
            "corr_constant": (dims, np.array(constant)),
            "fitted": (("depth", "seed"), np.array(fitted)),
            "linear_error": ("seed", [1e-8, 3e-8, 2e-8]),
        },
        {"depth": list(depths), "seed": range(3), "probe": ["images", "noise"]},
    )


def test_the_observables_are_read_off_planted_results():
    found = {claim: observe(result()) for claim, observe in OBSERVABLES.items()}
    assert float(found["shallow-is-identity-digits"]) == 0.97
    assert float(found["shallow-is-identity-noise"]) == 0.85
    assert float(found["fc-closed-form"]) == 3e-8
    # contrast 0.9 and 0.8 at depth 1, -0.8 and 0.2 at depth 14; the third seed did not fit
    np.testing.assert_allclose(found["depth-moves-from-identity-to-constant-mean"], [1.7, 0.6])
    assert found["depth-moves-from-identity-to-constant-mean"].dims == ("seed",)
    assert float(found["depth-moves-from-identity-to-constant-share"]) == 1.0


def test_networks_that_did_not_fit_do_not_count():
    one = result(fitted=((True, True, False), (True, False, True)))
    assert float(OBSERVABLES["shallow-is-identity-digits"](one)) == 0.98
    for end in ("share", "mean"):
        found = OBSERVABLES[f"depth-moves-from-identity-to-constant-{end}"](one)
        assert "fewer than two" in found.attrs["not_applicable"]
    none = result(fitted=((False,) * 3,) * 2)
    assert "no network" in OBSERVABLES["shallow-is-identity-noise"](none).attrs["not_applicable"]
    other = result(depths=(2, 14))
    assert "depth 1" in OBSERVABLES["shallow-is-identity-noise"](other).attrs["not_applicable"]


@pytest.mark.parametrize("depth", [1, 4])
def test_the_chain_keeps_the_shape_and_the_size_of_signals(depth):
    network = train.build(module.conv_chain, shape=(1, 12, 12), depth=depth, width=50, generator=0)
    assert [type(layer).__name__ for layer in network] == (["Conv2d", "ReLU"] * depth)[:-1]
    assert all(layer.bias is None for layer in network if isinstance(layer, torch.nn.Conv2d))
    x = torch.randn(20, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert network(x).shape == x.shape
    # He's draw keeps the second moment of rectified signals; padding and, at depth 1, a single filter make it vary
    assert 0.2 < network(x).square().mean().item() < 5
    same = train.build(module.conv_chain, shape=(1, 12, 12), depth=depth, width=50, generator=0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))


def test_one_cell_measures_images_and_noise_apart():
    small = functools.partial(data.digits, scale="unit")
    found = module.one_network(
        Lab(0), model=module.conv_chain, dataset=small, depth=1, width=8, probes=20, steps=600, end=1e-5, seed=0
    )
    assert found.probe.values.tolist() == ["images", "noise"] and float(found.train_error) < 0.05
    assert float(found.corr_identity.sel(probe="images")) > float(found.corr_constant.sel(probe="images"))
    assert abs(float(found.corr_constant.sel(probe="noise"))) < 0.2 and abs(float(found.noise_agreement)) < 0.3
    assert float(module.one_linear(Lab(0), dataset=small, seed=0).linear_error) < 1e-5
