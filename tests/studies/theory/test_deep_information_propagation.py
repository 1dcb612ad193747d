import math

import numpy as np
import pytest
import xarray as xr
from torch import nn

from phenoscope import theory
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import trainability as bench
from phenoscope.studies.theory import deep_information_propagation as module

study = module.study
SIGMAS = [1.0, 1.3, 1.76, 2.5, 4.0]


def result(**changes):
    fields = [theory.mean_field("tanh", value, 0.05) for value in SIGMAS]
    chi1, xi_c = np.array([f.chi1 for f in fields]), np.array([f.xi_c for f in fields])
    scales = np.array([*xi_c, np.inf])
    depths = np.array([8, 25, 60])
    accuracy = np.clip(1.2 - 0.02 * depths[:, None] * 10 / np.minimum(scales, 20), 0, 1)
    found = xr.Dataset(
        {
            "decay_rate": ("sigma_w2", np.array([0.9, 1.0, 30.0, 1.05, 1.1]) / xi_c),
            "xi_c": ("sigma_w2", xi_c),
            "chi1": ("sigma_w2", chi1),
            "gradient_slope": ("sigma_w2", 0.95 * np.log(chi1)),
            "accuracy": (("depth", "start"), accuracy),
            "trained_xi_c": (("depth", "start"), np.tile(scales, (3, 1))),
            "dropout_accuracy": (("keep", "depth"), [[0.8, 0.2, 0.1], [0.9, 0.9, 0.1]]),
        },
        {"sigma_w2": SIGMAS, "depth": depths, "keep": [0.9, 0.95]},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_rates_are_compared_with_their_scale_away_from_the_border_alone():
    assert float(observe("xi-c-law-lower", result())) == pytest.approx(0.9)
    assert float(observe("xi-c-law-upper", result())) == pytest.approx(1.1)  # the 30 is that of 1.76
    assert float(observe("gradient-law", result())) == pytest.approx(0.95)


def test_depths_are_those_where_accuracy_crosses_a_half():
    assert float(observe("trainable-depth-rank", result())) > 0.9
    crossing = module.crossings(result()).values
    assert crossing[-1] == 60  # censored
    assert float(observe("trainable-depth-ratio", result())) == pytest.approx(60 / crossing[0])
    with_dropout = 8 + 17 * 0.3 / 0.6
    assert float(observe("dropout-limits", result())) == pytest.approx(with_dropout / 60)


def test_what_was_not_run_does_not_apply():
    lacking = result().sel(sigma_w2=[1.76]).drop_vars("dropout_accuracy")
    for claim in ("xi-c-law-lower", "xi-c-law-upper", "gradient-law", "trainable-depth-ratio", "dropout-limits"):
        assert "not_applicable" in observe(claim, lacking).attrs, claim
    unknown = result(accuracy=result().accuracy * np.nan, dropout_accuracy=result().dropout_accuracy * np.nan)
    for claim in ("trainable-depth-rank", "trainable-depth-ratio", "dropout-limits"):
        assert "one activation" in observe(claim, unknown).attrs["not_applicable"]


@pytest.mark.parametrize("sigma_w2", [1.0, 4.0])
def test_small_random_networks_decay_at_about_the_predicted_rate(sigma_w2):
    found = module.follow(Lab(0), sigma_w2=sigma_w2, sigma_b2=0.05, width=200, depth=25, nets=10)
    assert float(found.distance[0]) == pytest.approx(module.AWAY, rel=1e-3)
    assert float(found.decay_rate * found.xi_c) == pytest.approx(1, abs=0.25)  # width 200 and ten nets
    assert float(found.gradient_slope) == pytest.approx(math.log(float(found.chi1)), abs=0.06)


def test_a_network_of_another_kind_is_said_to_be_one():
    def make(shape, num_classes, *, depth, width):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.LayerNorm(width), nn.Linear(width, num_classes))

    cell = dict(dataset=bench.digits, sigma_w2=(1.0,), sigma_b2=0.05, width=8, steps=2, depth=2, keep=1.0)
    found = module.train_depth(Lab(0), model=make, **cell)
    assert bool(found.accuracy.isnull().all())
    found = module.train_depth(Lab(0), model=bench.mlp, **cell)
    assert found.trained_sigma_w2.values == pytest.approx([1.0, 1.7609546], rel=1e-6)
    assert float(found.trained_xi_c[0]) == pytest.approx(3.63, abs=0.01)
