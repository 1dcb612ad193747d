import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope import data, models
from phenoscope.lab.map import Lab
from phenoscope.studies.empirical import spp_isometry as module

study = module.study


def result(**changes):
    inits, arms = list(module.INITS), list(module.ARMS)
    mean = np.full((2, 3, 4, 4), np.nan)
    mean[0, :, :, 0] = 0.9  # dense
    mean[0, :, :, 1] = np.exp(-np.array([2.0, 4.0, 3.0, 1.0]))  # pruned: damped
    mean[0, :, :, 2] = np.exp(0.25 + 0.05 * np.arange(4))  # enforced: amplified a little
    loss = np.full((2, 3, 4, 4, 2), 2.0)
    loss[0, ..., 1] = np.exp(np.abs(np.log(mean[0])))  # the farther from 1, the slower
    found = xr.Dataset(
        {
            "mean_singular_value": (("net", "seed", "init", "arm"), mean),
            "loss": (("net", "seed", "init", "arm", "step"), loss),
        },
        {"net": ["tanh", "linear"], "seed": range(3), "init": inits, "arm": arms, "step": [0, 100]},
    )
    return found.assign(changes)


def observe(claim, given=None):
    return study.observables[claim](result() if given is None else given)


def test_gaps_are_differences_of_sizes_of_logarithms_seed_by_seed():
    gap = observe("pruning-breaks-enforcement-restores-gap")
    assert gap.dims == ("seed",)
    np.testing.assert_allclose(gap, 2 - 0.25)
    saved = observe("trains-faster")
    assert saved.dims == ("seed",)
    np.testing.assert_allclose(saved, 2 - 0.25)


def test_the_level_is_a_logarithm_to_base_three():
    level = observe("pruning-breaks-enforcement-restores-level")
    assert level.dims == () and float(level) == pytest.approx((0.25 - np.log(0.9)) / np.log(3))


def test_the_correlation_runs_over_eight_cells():
    assert float(observe("jsv-predicts-trainability")) == pytest.approx(1)
    backwards = result(loss=1 / result().loss)
    assert float(observe("jsv-predicts-trainability", backwards)) == pytest.approx(-1)
    without = result().sel(step=[0])
    for claim in ("jsv-predicts-trainability", "trains-faster"):
        assert "fewer than 100" in observe(claim, without).attrs["not_applicable"]


def test_one_factor_a_layer_leaves_the_spread():
    network = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4))
    scaled = module.rescaled(network)
    for before, after in ((network[0], scaled[0]), (network[1], scaled[1])):
        a, b = (torch.linalg.svdvals(layer.weight.detach()) for layer in (before, after))
        assert b.square().mean().item() == pytest.approx(1, rel=1e-5)
        torch.testing.assert_close(a / a[0], b / b[0], rtol=1e-4, atol=1e-6)
        assert torch.equal(before.bias, after.bias)


def test_the_arms_of_a_seed_share_their_masks_and_differ_as_they_should():
    found = module.one_seed(
        Lab(0), model=module.four_layers, dataset=lambda generator: data.digits(train=300, generator=generator),
        batch=100, enforce_steps=100, steps=4, seed=0,
    )  # fmt: skip
    error = found.layer_error.sel(init="isometric")
    assert float(error.sel(arm="dense")) < 1e-4 < float(error.sel(arm="enforced")) < float(error.sel(arm="pruned"))
    assert float(error.sel(arm="enforced")) < float(error.sel(arm="rescaled"))
    # at step 0 the losses are those of the networks as they were made, before any update
    start = found.loss.isel(step=0)
    assert np.isfinite(start).all() and len(np.unique(start.sel(init="isometric"))) == 4
    # the isometric start with tanh damps least; half the variance halves the gain with every two layers
    dense = found.mean_singular_value.sel(arm="dense")
    assert 0.2 < float(dense.sel(init="isometric")) <= 1
    assert float(dense.sel(init="Gaussian, variance x 0.5")) < float(dense.sel(init="Gaussian, variance x 1"))


def test_a_linear_network_with_an_isometric_start_has_singular_values_of_one():
    network = module.deep_linear((1, 8, 8), 10, generator=0)
    models.init_orthogonal(network, generator=0)
    found = module.singular_values(network, torch.randn(3, 1, 8, 8))
    # from 64 through 100 to 10: the last layer keeps ten directions of those that come from the input
    assert 0.5 < found["mean_singular_value"] <= 1 + 1e-5 and found["share_of_living"] == 1
