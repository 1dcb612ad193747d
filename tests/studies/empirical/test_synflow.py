import functools

import numpy as np
import pytest
import xarray as xr

from phenoscope import data, models, prune
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import pruned_digits as bench
from phenoscope.studies.empirical import synflow as module

study = module.study


def result(**changes):
    compression = 10 ** np.arange(0, 3, 0.5)
    emptiest = np.full((2, 3, 6, 6), 5.0)
    emptiest[:, :, 1, 4:] = 0  # once: up to 10^1.5
    emptiest[:, :, 3, 5:] = 0  # magnitude
    emptiest[1, 2, 4, 3:] = 0  # SNIP in one run of the deep network
    emptiest[1, :, :, 5] = np.nan  # beyond the limit
    accuracy = np.zeros((3, 4, 2))
    accuracy[:, 0, 1], accuracy[:, 1, 1] = 0.8, 0.3
    accuracy += np.arange(3)[:, None, None] / 100
    found = xr.Dataset(
        {
            "emptiest": (("net", "collapse_seed", "pruner", "compression"), emptiest),
            "emptiest_near_limit": (("net", "collapse_seed"), [[1, 2, 1], [3, 1, 1]]),
            "limit": (("net", "collapse_seed"), [[1000.0] * 3, [200.0] * 3]),
            "accuracy": (("seed", "arm", "density"), accuracy),
            "dense_accuracy": ("seed", [0.9] * 3),
        },
        {
            "net": ["wide", "deep"], "collapse_seed": range(3), "pruner": list(module.PRUNERS),
            "compression": compression, "seed": range(3), "arm": list(module.ARMS), "density": [0.05, 0.01],
        },
    )  # fmt: skip
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_the_observables_of_the_collapse():
    assert float(observe("no-layer-collapse-synflow", result())) == 1
    # wide: magnitude at 10^2.5 of 1000; deep: once does not count, SNIP in one run at 10^1.5, in the others nothing
    found = observe("no-layer-collapse-baselines", result())
    assert np.isinf(found)  # two runs of the deep network never lose a layer
    all_lost = result(emptiest=result().emptiest.where(result().pruner != "grasp", 0.0))
    all_lost["emptiest"].loc[dict(pruner="grasp", compression=1.0)] = 7
    assert float(observe("no-layer-collapse-baselines", all_lost)) == pytest.approx(10**0.5 / 200)
    assert float(observe("iteration-is-needed", result())) == pytest.approx(2.5 - 1.5)


def test_the_accuracy_is_a_paired_difference_at_its_density():
    found = observe("extreme-sparsity-accuracy", result())
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, 0.5)
    without = observe("extreme-sparsity-accuracy", result().sel(density=[0.05]))
    assert "density 0.01" in without.attrs["not_applicable"]


def test_every_pruner_keeps_the_share_and_synflow_alone_every_layer():
    small = functools.partial(models.mlp, width=(64, 64, 8))
    found = module.emptiest_layers(
        Lab(0), name="wide", model=small, dataset=bench.digits, batch=100, iterations=20, seed=0
    )
    assert float(found.limit) == (64 * 64 * 2 + 64 * 8 + 80) / 4
    assert (found.emptiest.sel(compression=1.0) == 80).all()
    assert (found.emptiest.sel(pruner="synflow") >= 1).all() and int(found.emptiest_near_limit) >= 1
    assert (found.emptiest.isel(compression=-1).drop_sel(pruner="synflow") == 0).sum() >= 3
    split, network = bench.setting(Lab(0), model=small, dataset=bench.digits, seed=0)
    for pruner in module.PRUNERS:
        masks = module.pruned(network, pruner, split.train, 0.1, iterations=5, generator=0)
        assert sum(masks.counts.values()) == round(0.1 * 4 * float(found.limit)), pruner


def test_the_small_images_fit_the_small_network():
    split = data.load(module.small_shapes, generator=0)
    network = module.small_vgg(split.train[0].shape[1:], len(split.classes), generator=0)
    assert network(split.test[0]).shape == (50, 5)
    assert len(prune.Masks.ones(network)) == 7
