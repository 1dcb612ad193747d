import numpy as np
import pytest
import xarray as xr

from phenoscope import data
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tickets as bench
from phenoscope.studies.empirical import early_phase as module

OBSERVABLES = module.study.observables
ARMS = [*module.SEVEN, module.FRESH]


def result(accuracy=(0.8, 0.75, 0.6, 0.5, 0.65, 0.7, 0.3, 0.2), size=(0, 0.5, 1.2, 2, 1, 0.6, 3, 2)):
    steps, layers = [0, 10, 30, 300], ["a", "all"]
    flips = np.broadcast_to(np.array([0, 0.2, 0.4, 1])[:, None], (3, 4, 2)).copy()
    flips[..., 0] = 0.9  # of a single layer: not asked for
    gradient = np.stack([np.array([8.0, 6.0, 3.0, 2.0]) * factor for factor in (1, 2, 5)])
    return xr.Dataset(
        {
            "accuracy": (("seed", "arm"), np.array([np.array(accuracy) + shift for shift in (0, 0.01, -0.02)])),
            "size": (("seed", "arm"), np.tile(np.array(size, float), (3, 1))),
            "flips_made": (("seed", "step", "layer"), flips),
            "gradient": (("seed", "step", "layer"), np.stack([gradient * 7, gradient], -1)),
        },
        {"arm": ARMS, "step": steps, "layer": layers},
    )


def test_arms_are_compared_with_untouched_weights_seed_by_seed():
    np.testing.assert_allclose(OBSERVABLES["signs-are-not-enough"](result()), 0.2)
    np.testing.assert_allclose(OBSERVABLES["shuffling-hurts"](result()), 0.3)
    assert OBSERVABLES["shuffling-hurts"](result()).dims == ("seed",)


def test_damage_is_ranked_over_the_seven_arms_without_fresh_weights():
    claim = OBSERVABLES["damage-follows-perturbation-size"]
    assert claim(result()).dims == ()
    np.testing.assert_allclose(claim(result()), -1)
    upside = result(accuracy=(0.3, 0.31, 0.5, 0.6, 0.45, 0.4, 0.7, 0.2))
    np.testing.assert_allclose(claim(upside), 1)


def test_motion_is_that_of_the_whole_network_at_the_registered_steps():
    np.testing.assert_allclose(OBSERVABLES["fast-early-motion-signs"](result()), 0.4)  # at a tenth of 300 steps
    np.testing.assert_allclose(OBSERVABLES["fast-early-motion-gradients"](result()), 3)


def test_where_fresh_weights_do_as_well_or_an_arm_is_missing_nothing_is_said():
    void = result(accuracy=(0.8, 0.75, 0.6, 0.5, 0.65, 0.7, 0.3, 0.797))
    few = result().sel(arm=[module.UNTOUCHED, module.START])
    for claim in ("signs-are-not-enough", "shuffling-hurts", "damage-follows-perturbation-size"):
        assert "even fresh weights" in OBSERVABLES[claim](void).attrs["not_applicable"]
        assert "was not trained" in OBSERVABLES[claim](few).attrs["not_applicable"]


@pytest.fixture(scope="module")
def one_seed():
    common = dict(model=bench.mlp, dataset=data.digits, density=0.1, arms=tuple(module.ARMS), steps=100, seed=0)
    return module.one_seed(Lab(0), **common)


def test_all_arms_stand_in_one_seed_and_their_sizes_are_in_the_order_of_the_paper(one_seed):
    assert one_seed.arm.values.tolist() == [module.UNTOUCHED, module.START, *module.ARMS]
    size = one_seed["size"].to_series()
    assert size[module.UNTOUCHED] == 0 < size[module.START] < size[module.MAGNITUDES] < size[module.PLACES]
    # 1,740 normal numbers: their deviation is known to 2 %
    assert size["noise of 0.5"] == pytest.approx(0.5, rel=0.07)
    assert size["noise of 3"] == pytest.approx(3, rel=0.07)
    assert {0, 5, 10, 100} <= set(one_seed.step.values)
    assert one_seed.accuracy.sel(arm=module.UNTOUCHED) > 0.5  # chance is 0.1
