import functools

import numpy as np
import pytest
import xarray as xr

from phenoscope.lab.map import Lab
from phenoscope.studies.empirical import random_labels as module

OBSERVABLES = module.study.observables
KINDS = ["true", "random", "gaussian"]


def result():
    dims, shape = ("regularizer", "kind", "seed"), (3, 3, 2)
    train, tested, steps = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    train[:, :2], train[0, 1], train[1, 1] = 1.0, [0.995, 0.999], [0.9, 0.96]
    tested[0, 0], tested[1, 0], tested[2, 0], tested[:, 1] = [0.9, 0.92], [0.93, 0.95], [0.8, 0.8], [0.1, 0.12]
    steps[0, 0], steps[0, 1] = [10, 20], [100, 100]
    found = {"train_accuracy": train, "test_accuracy": tested, "fit_steps": steps}
    coordinates = {"regularizer": list(module.REGULARIZERS), "kind": KINDS}
    return xr.Dataset({name: (dims, values) for name, values in found.items()}, coordinates).assign(
        interpolator_error=1e-11
    )


def test_the_observables_are_read_off_planted_results():
    found = {claim: observe(result()) for claim, observe in OBSERVABLES.items()}
    assert {claim: float(value) for claim, value in found.items()} == pytest.approx(
        {
            "fits-random-labels-training": 0.995,
            "fits-random-labels-test": 0.11,
            "only-a-small-factor-slower": 7.5,  # the mean of 10 and 5
            "only-a-small-factor-slower-all-fit": 1.0,
            "regularisation-is-not-the-cause-gain": 0.03,
            "regularisation-is-not-the-cause-labels": 0.8,
            "regularisation-is-not-the-cause-still-fits": 0.93,
            "exact-expressivity": 1e-11,
        }
    )
    assert all(value.dims == () for value in found.values())


def test_networks_that_never_fit_have_no_factor():
    one = result()
    one["fit_steps"][0, 1, 1] = np.nan
    assert float(OBSERVABLES["only-a-small-factor-slower-all-fit"](one)) == 0.5
    assert "99 %" in OBSERVABLES["only-a-small-factor-slower"](one).attrs["not_applicable"]
    without = one.sel(regularizer=["none", "weight decay"])
    assert "dropout" in OBSERVABLES["regularisation-is-not-the-cause-gain"](without).attrs["not_applicable"]


def test_every_kind_runs_and_regularizers_only_with_true_and_random_labels():
    found = module.one_seed(
        Lab(0), model=functools.partial(module.mlp, width=16), dataset=functools.partial(module.digits, train=100),
        kinds=("true", 0.2, "random", "gaussian"), steps=4, seed=0,
    )  # fmt: skip
    assert found.kind.values.tolist() == ["true", "0.2", "random", "gaussian"]
    there = found.test_accuracy.notnull()
    assert there.sel(regularizer="none").all() and there.sel(kind=["true", "random"]).all()
    assert not there.sel(regularizer=["weight decay", "dropout"], kind=["0.2", "gaussian"]).any()
    assert -1 <= float(found.rademacher) <= 1 and set(found.curve.dims) == {"kind", "step"}


def test_the_written_network_is_exact():
    assert module.interpolator_error(Lab(0)) < 1e-6
