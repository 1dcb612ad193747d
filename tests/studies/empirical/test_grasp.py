import numpy as np
import pytest
import xarray as xr

from phenoscope.studies.empirical import grasp as module

study = module.study


def result(**changes):
    densities = [0.1, 0.05, 0.02]
    accuracy, norm = np.zeros((3, 4, 3)), np.ones((3, 4, 3))
    for place, value in enumerate((0.9, 0.85, 0.6, 0.3)):
        accuracy[:, place] = value + np.arange(3)[:, None] / 100
    norm[:, 0], norm[:, 1], norm[:, 2] = 10.0, 10.0 / np.e, 0.01
    dims = ("seed", "arm", "density")
    found = xr.Dataset(
        {"accuracy": (dims, accuracy), "gradient_norm": (dims, norm)},
        {"seed": range(3), "arm": list(module.ARMS), "density": densities},
    )
    return found.assign(changes)


def observe(claim, data):
    found = study.observables[claim](data)
    assert "not_applicable" in found.attrs or (found.dims == ("seed",) and found.seed.values.tolist() == [0, 1, 2])
    return found


def test_the_observables_are_paired_differences_at_their_density():
    np.testing.assert_allclose(observe("beats-random-sparse", result()), 0.3)
    np.testing.assert_allclose(observe("sign-matters", result()), 0.6)
    np.testing.assert_allclose(observe("preserves-gradient-norm-random", result()), 3)  # decades
    np.testing.assert_allclose(observe("preserves-gradient-norm-snip", result()), 1)  # natural logarithm


def test_what_a_run_lacks_does_not_apply():
    assert "density 0.02" in observe("beats-random-sparse", result().sel(density=[0.1])).attrs["not_applicable"]
    none = result(gradient_norm=result().gradient_norm.where(result().arm != "random", 0.0))
    assert "no gradient" in observe("preserves-gradient-norm-random", none).attrs["not_applicable"]
    assert "photos=" in observe("vgg-extreme", result()).attrs["not_applicable"]


def test_the_deep_networks_are_averaged_over_everything():
    dims = ("photos", "network", "photo_seed", "deep_arm")
    values = np.zeros((2, 2, 3, 2))
    values[..., 0] = 0.7
    values[0, 1, :, 0] = 0.5
    values[..., 1] = 0.6
    found = study.observables["vgg-extreme"](
        result().assign(deep_accuracy=(dims, values)).assign_coords(deep_arm=["grasp", "snip"])
    )
    assert found.dims == () and float(found) == pytest.approx(0.65 - 0.6)


def test_the_score_predicts_what_removals_do_to_the_gradient():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import pruned_digits as bench

    split, network = bench.setting(Lab(0), model=bench.mlp, dataset=bench.digits, seed=0)
    sample = bench.balanced(split.train, 100, 10, generator=0)
    predicted, measured = (np.array(each) for each in module.first_order(network, sample, n=50, generator=0))
    # whole weights go, so the second order is as large as the first; tests of grasp_scores go to the limit
    assert np.corrcoef(predicted, measured)[0, 1] > 0.3
    assert 0.3 < measured.std() / predicted.std() < 3
    again = module.first_order(network, sample, n=50, generator=0)
    assert again == (predicted.tolist(), measured.tolist())
