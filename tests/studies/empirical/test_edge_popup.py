import numpy as np
import xarray as xr

from phenoscope.lab.map import Lab
from phenoscope.models import mlp
from phenoscope.studies.benches import pruned_digits as bench
from phenoscope.studies.empirical import edge_popup as module

OBSERVABLES = module.study.observables


def result():
    widths, densities, shift = [32, 128, 512], [0.05, 0.1, 0.5, 0.95], np.array([0, 0.01, -0.02])
    accuracy = np.zeros((2, 3, 4, 3))
    accuracy[:, :, 0] = np.array([0.6, 0.8, 0.9])[:, None] + shift
    accuracy[:, :, 1] = 0.3
    accuracy[:, :, 2] = 0.95
    accuracy[1] -= 0.4  # other data are not asked for
    swept = np.array([[0.3, 0.4, 0.2], [0.5, 0.5, 0.5], [0.9, 0.9, 0.9], [0.1, 0.6, 0.3]])
    return xr.Dataset(
        {
            "accuracy": (("task", "width", "arm", "seed"), accuracy),
            "by_density": (("density", "sweep_seed"), swept),
        },
        {"task": ["data", "beside"], "width": widths, "arm": list(module.ARMS), "density": densities},
    )


def test_the_worst_seed_at_the_largest_width_is_compared_with_the_best_random_mask():
    found = OBSERVABLES["untrained-subnet-works"](result())
    assert found.dims == ()
    np.testing.assert_allclose(found, 0.58)


def test_the_gap_is_that_to_the_trained_network_of_the_same_width_seed_by_seed():
    found = OBSERVABLES["width-closes-gap"](result())
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, 0.3)


def test_the_middle_is_compared_with_the_better_end_of_each_seed():
    found = OBSERVABLES["interior-density-is-best"](result())
    assert found.dims == ()
    np.testing.assert_allclose(found, np.mean([0.6, 0.3, 0.6]))


def test_what_was_not_run_does_not_apply():
    few = result().sel(width=[128], density=[0.5])
    for claim in module.study.observables:
        assert "not run" in OBSERVABLES[claim](few).attrs["not_applicable"]


def test_the_smaller_network_has_no_more_weights_than_are_chosen():
    splits, networks = module.setting(Lab(0), model=mlp, dataset=bench.digits, width=128, seeds=1)
    count = module.weight_count(networks[0])
    assert count == 64 * 128 + 128**2 + 1280
    width = module.smaller(mlp, splits[0], 128, count // 2)
    sizes = [module.weight_count(module.made(mlp, splits[0], each, 0)) for each in (width, width + 1)]
    assert sizes[0] <= count // 2 < sizes[1]
