import numpy as np
import pytest
import xarray as xr

from phenoscope.lab.map import Lab
from phenoscope.studies.benches import wide_nets as bench
from phenoscope.studies.theory import wide_nets_are_linear as module

study = module.study
WIDTHS = [32, 128, 512, 1024]


def result(**changes):
    widths, seeds = np.array(WIDTHS, dtype=float), np.arange(3)
    falls = widths[:, None] ** -(0.8 + 0.1 * seeds)
    found = xr.Dataset(
        {
            "deviation": (("width", "seed", "step"), falls[:, :, None] * np.array([0.0, 1.0, 0.5])),
            "kernel_change": (("width", "seed"), 3 * falls),
            "closed_form_gap": (("width", "seed", "step"), np.full((4, 3, 3), [0.0, 0.04, 0.02])),
            "closed_form_error": ("seed", [1e-15, 2e-15, 3e-15]),
            "loss_growth": (("seed", "factor"), [[1.0, 50.0], [1.0, 2.0], [11.0, np.nan]]),
            "linear_loss_growth": (("seed", "factor"), [[1.0, 50.0], [1.0, np.inf], [1.0, np.nan]]),
            "farthest": (("seed", "factor"), [[0.1, 5.0], [0.1, 3.0], [0.1, np.inf]]),
        },
        {"width": WIDTHS, "seed": seeds, "step": range(3), "factor": [module.BELOW, module.ABOVE]},
        {"threshold_width": 1024, "threshold_steps": 100},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_slopes_are_the_exponents_of_the_largest_distance_and_of_the_kernels_change():
    np.testing.assert_allclose(observe("error-falls-with-width", result()), [-0.8, -0.9, -1.0])
    assert observe("error-falls-with-width", result()).dims == ("seed",)
    np.testing.assert_allclose(observe("ntk-freezes", result()), -0.9)


def test_widths_beyond_those_registered_do_not_count():
    further = result().isel(width=[0, 1, 2, 3, 3]).assign_coords(width=[*WIDTHS, 4096])
    np.testing.assert_allclose(observe("error-falls-with-width", further), [-0.8, -0.9, -1.0])


def test_the_other_observables_are_largest_over_steps_and_means_or_shares_over_seeds():
    assert float(observe("closed-form-tracks-network", result())) == pytest.approx(0.04)
    assert float(observe("closed-form-tracks-linear", result())) == pytest.approx(2e-15)
    assert float(observe("lr-threshold-below", result())) == pytest.approx(2 / 3)
    assert float(observe("lr-threshold-above", result())) == 1.0  # what is no number any more has diverged
    assert float(observe("lr-threshold-departure", result())) == pytest.approx(30)


def test_what_was_not_run_does_not_apply():
    small = result().sel(width=[32, 128]).assign_attrs(threshold_width=128)
    for claim in set(study.observables) - {"closed-form-tracks-linear"}:
        assert "not_applicable" in observe(claim, small).attrs, claim


def test_the_closed_form_is_the_trained_linearization_and_the_network_is_neither():
    arm = dict(model=bench.mlp, dataset=bench.digits, classes=2, n=16, steps=20, seed=0)
    exact = module.one_network(Lab(0), what="exact", width=16, **arm)
    assert float(exact.closed_form_error) < 1e-9  # float64
    found = module.one_network(Lab(0), what="squares", width=16, **arm)
    assert float(found.deviation[0]) == pytest.approx(0, abs=1e-6)  # float32
    assert float(found.deviation.max()) > 1e-3 and 0 < float(found.loss_left) < 1
    above = module.one_network(Lab(0), what="threshold", width=16, **arm | {"steps": 40})
    assert float(above.linear_loss_growth.sel(factor=module.ABOVE)) > 1e6  # 1.6^80, times the start's share
    assert float(above.linear_loss_growth.sel(factor=module.BELOW)) == pytest.approx(1)


def test_in_the_standard_parametrization_half_the_critical_rate_falls_as_the_inverse_of_the_width():
    arm = dict(what="standard", model=bench.mlp, dataset=bench.digits, classes=2, n=16, steps=10, seed=0)
    rates, away = [], []
    for width in (128, 1024):
        found = module.one_network(Lab(0), width=width, **arm)
        rates.append(float(found.standard_rate))
        away.append(float(found.standard_distance.max()))
    assert rates[0] / rates[1] == pytest.approx(
        8, rel=0.3
    )  # the inputs' weights, whose share does not grow, count less and less
    assert away[1] < away[0]


def test_the_rate_that_the_theorem_asks_for_is_below_the_critical_one():
    found = module.one_network(
        Lab(0), what="squares", model=bench.mlp, dataset=bench.digits, classes=2, n=8, steps=2, width=16, seed=0
    )
    assert 0.5 * float(found.critical_rate) <= float(found.sufficient_rate) < float(found.critical_rate)
