import math

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data
from phenoscope.lab.seeds import seed_for
from phenoscope.studies.empirical import ib_critique as module

OBSERVABLES = module.study.observables


class Lab:
    device = torch.device("cpu")

    def seed(self, *path):
        return seed_for(0, *path)


def planted():
    """In hidden layer 4 of 5, tanh loses 3 bits, ReLU 0.5 and full batches 6; other layers nothing."""
    lost = {module.TANH: 3.0, module.RELU: 0.5, module.FULL: 6.0}
    told = np.zeros((3, 2, 3, 6))
    told[:] = [[[4.0] * 6, [9.0] * 6, [9.0] * 6]]
    for place, drop in enumerate(lost.values()):
        told[place, :, 2, 3] -= drop
    linear = {"linear_input": [[1.0, 2.0, 1.9]] * 2, "linear_error": [[1.0, 0.5, 3.0], [2.0, 1.2, 4.0]]}
    return xr.Dataset(
        {"input": (("arm", "seed", "step", "layer"), told)}
        | {name: (("seed", "linear_step"), values) for name, values in linear.items()},
        {"arm": list(lost), "seed": [0, 1], "step": [0, 5, 9], "layer": range(1, 7), "linear_step": [0, 10, 20]},
    )


def test_claims_read_the_last_hidden_layer_but_one():
    found = OBSERVABLES["tanh-compresses-relu-does-not-gap"](planted())
    assert found.dims == ("seed",) and found.values.tolist() == [2.5, 2.5]
    for claim, wanted in (
        ("tanh-compresses-relu-does-not-ratio", 0.5 / 3),
        ("stochasticity-not-needed", 2.0),
        ("linear-generalises-uncompressed-information", 0.95),
        ("linear-generalises-uncompressed-error", 0.55),
    ):
        found = OBSERVABLES[claim](planted())
        assert found.dims == () and float(found) == pytest.approx(wanted)


def test_the_linear_student_learns_and_its_information_is_the_closed_form():
    found = module.one_student(Lab(), seed=0, steps=60)
    assert found.linear_step.values.tolist() == list(range(0, 61, module.LINEAR_EVERY))
    # at the start W is N(0, 1 / d) and x N(0, I / d): the mean of log2(1 + l / (d s2)) / 2 over the squared singular
    # values l of W, by the law of Marchenko and Pastur for a square matrix: density sqrt(l (4 - l)) / (2 pi l); 3 %
    angle = np.linspace(0, math.pi, 20001)[1:-1]
    levels = 2 - 2 * np.cos(angle)
    density = np.sqrt(levels * (4 - levels)) / (2 * math.pi * levels) * 2 * np.sin(angle)
    wanted = np.trapezoid(density * np.log2(1 + levels / (module.LINEAR * module.LINEAR_NOISE)) / 2, angle)
    assert float(found.linear_input[0]) == pytest.approx(module.LINEAR * wanted, rel=0.03)
    # before it has learned anything its error is the signal's power, 1, and it falls
    assert float(found.linear_error[0]) == pytest.approx(1, abs=0.1)
    assert float(found.linear_error.min()) < 0.8


def test_arms_share_one_estimator_and_only_units_or_batches_differ():
    common = dict(
        model=module.bench.mlp, dataset=data.icosahedral_bits, steps=20, recordings=3, seeds=1, bins=(30,), noises=()
    )
    found = {arm: module.one_arm(Lab(), arm=arm, **common) for arm in module.ARMS}
    tanh, relu, full = (found[arm] for arm in (module.TANH, module.RELU, module.FULL))
    for one in found.values():
        np.testing.assert_allclose(one.binned.sel(bins=30), one.input.isel(layer=-3, drop=True))
        assert one.sizes["layer"] == 6 and "kde" not in one
    # before the first step full and small batches have the same network, ReLU another
    np.testing.assert_array_equal(tanh.input.isel(step=0), full.input.isel(step=0))
    assert not np.allclose(tanh.input.isel(step=0), relu.input.isel(step=0))
    assert not np.allclose(tanh.input.isel(step=-1), full.input.isel(step=-1))
