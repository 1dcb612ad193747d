import numpy as np
import pytest
import xarray as xr

from phenoscope.lab.map import Lab
from phenoscope.studies.benches import pruned_digits as bench
from phenoscope.studies.empirical import ntt as module

OBSERVABLES = module.study.observables


def result(density=0.05):
    steps = [*range(101), 200, 600]
    accuracy = np.zeros((3, 4, len(steps)))
    accuracy[:, 0, 1:101], accuracy[:, 0, -1] = 0.6, 0.9
    accuracy[:, 1, -1] = np.array([0.5, 0.6, 0.7])
    accuracy[:, 2, 1:101] = np.array([0.5, 0.55, 0.4])[:, None]
    accuracy[:, :, 0] = 1  # before the first update: not asked for
    distance = np.array([[[100.0, 4], [10, 1]], [[100, 4], [1, 1]], [[10, 4], [10, 1]]])
    return xr.Dataset(
        {
            "accuracy": (("seed", "arm", "step"), accuracy),
            "distance": (("seed", "time", "what"), distance),
            "layer_density": (("seed", "sparse_arm", "layer"), np.full((3, 3, 2), density)),
        },
        {
            "arm": list(module.ARMS), "sparse_arm": list(module.ARMS[:3]), "step": steps,
            "time": ["before", "after"], "what": ["kernel", "output"],
        },
    )  # fmt: skip


def test_distances_are_compared_as_logarithms_averaged_over_seeds():
    for name, wanted in (("kernel", -1), ("output", -np.log10(4))):
        found = OBSERVABLES[f"kernel-brought-closer-{name}"](result())
        assert found.dims == ()
        np.testing.assert_allclose(found, wanted)


def test_accuracies_are_paired_at_the_end_and_over_the_first_hundred_updates():
    np.testing.assert_allclose(OBSERVABLES["beats-random-layerwise"](result()), [0.4, 0.3, 0.2])
    np.testing.assert_allclose(OBSERVABLES["faster-early"](result()), [0.1, 0.05, 0.2])


def test_another_density_or_a_short_training_does_not_apply():
    assert "not 0.05" in OBSERVABLES["beats-random-layerwise"](result(0.1)).attrs["not_applicable"]
    short = result().isel(step=slice(50))
    assert "fewer than 100" in OBSERVABLES["faster-early"](short).attrs["not_applicable"]


@pytest.fixture(scope="module")
def one_seed():
    common = dict(model=module.mlp, dataset=bench.digits, density=0.05, transfer_steps=4, lam_kernel=1e-3)
    return module.one_seed(Lab(0), held_out=20, steps=8, seed=0, **common)


def test_every_arm_keeps_the_same_share_of_every_layer(one_seed):
    np.testing.assert_allclose(one_seed.layer_density, 0.05, atol=5e-4)
    assert one_seed.accuracy.notnull().all() and float(one_seed.kept_from_start.min()) > 0.9


def test_arms_differ_before_training_and_the_transfer_is_told(one_seed):
    assert one_seed.step.values.tolist() == list(range(9))
    assert float(one_seed.distance.min()) > 0 and len(one_seed.transfer_kernel) == 4
