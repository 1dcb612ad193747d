import numpy as np
import xarray as xr

from phenoscope import data as data_sets
from phenoscope import prune
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tickets as bench
from phenoscope.studies.empirical import linear_mode_connectivity as module

OBSERVABLES = module.study.observables
FALL, HALF, ORDER = "barrier-falls-with-k", "stable-before-the-end", "barrier-monotone-in-k"
EARLY, START = "resnet20-early-step", "resnet20-early-unstable-at-start"


def result(ks=(0, 15, 75, 300, 750), photos=True):
    train = np.linspace(0.3, 0.0, len(ks)) + np.array([[0.0], [0.01], [0.02]])
    barrier = np.stack([train, train + 5], 1)  # the test part must not be taken
    found = xr.Dataset(
        {"error_barrier": (("seed", "part", "k"), barrier)},
        {"seed": range(3), "part": ["train", "test"], "k": list(ks), "steps": 1500},
    )
    if photos:
        heights = [[0.3, 0.03, 0.01, 0.0], [0.1, 0.04, 0.02, 0.0]]
        both = np.stack([np.array(heights) + 5, heights], 1)
        found["photo_error_barrier"] = ("photo_seed", "part", "photo_k"), both
        found = found.assign_coords(photo_k=[0, 500, 2000, 4000])
    return found


def test_the_barrier_at_half_of_the_training_is_that_of_the_training_error():
    found = OBSERVABLES[HALF](result())
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, [0.0, 0.01, 0.02], atol=1e-12)
    np.testing.assert_allclose(OBSERVABLES[FALL](result()), 0.3)


def test_the_order_is_that_of_seed_means():
    assert OBSERVABLES[ORDER](result()) == -1
    turned = result()
    turned["error_barrier"] = turned.error_barrier[..., ::-1].assign_coords(k=turned.k)
    np.testing.assert_allclose(OBSERVABLES[ORDER](turned), 1)


def test_the_residual_network_is_judged_by_its_mean_test_barriers():
    assert OBSERVABLES[EARLY](result()) == 2000  # (0.01 + 0.02) / 2
    np.testing.assert_allclose(OBSERVABLES[START](result()), 0.2)
    never = result()
    never["photo_error_barrier"] = never.photo_error_barrier + 1
    assert "at any k" in OBSERVABLES[EARLY](never).attrs["not_applicable"]
    late = result().isel(photo_k=slice(1, None))
    assert "not_applicable" in OBSERVABLES[START](late).attrs


def test_what_was_not_run_does_not_apply():
    short = result(ks=(0, 75), photos=False)
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](short).attrs, claim
    assert "not_applicable" in OBSERVABLES[FALL](result(ks=(15, 750))).attrs


def test_all_arms_of_one_seed_share_a_trunk_and_one_point_for_each_copy():
    found = module.one_seed(
        Lab(0), model=bench.mlp, dataset=data_sets.digits, ks=(0, 20), sparse_ks=(0, 20), density=0.5, steps=40,
        points=3, seed=0,
    )  # fmt: skip
    assert found.error.sizes == {"part": 2, "k": 2, "alpha": 3}
    assert found.sparse_error.sizes == {"mask": 2, "part": 2, "sparse_k": 2, "alpha": 3}
    assert bool((found.distance > 0).all()) and bool((found.sparse_distance > 0).all())


def test_the_random_mask_has_the_magnitude_masks_layers():
    network = bench.mlp((1, 8, 8), 10, generator=0)
    masks = prune.one_shot(network, density=0.1)
    drawn = module.shuffled(lambda _: masks, network, generator=0)
    assert drawn.counts == masks.counts and drawn != masks


def test_the_figure_shows_every_step_and_kind_of_mask():
    found = module.one_seed(
        Lab(0), model=bench.mlp, dataset=data_sets.digits, ks=(0, 5), sparse_ks=(0,), density=0.5, steps=10, points=3,
        seed=0,
    )  # fmt: skip
    both = xr.concat([found, found], "seed").assign_coords(steps=10)
    names = [trace.name for trace in module.study.draw(both).data]
    assert names[:4] == ["train error", "test error", "train error, magnitude mask", "train error, random mask"]
    assert names[4:] == ["k = 0", "k = 5"]
