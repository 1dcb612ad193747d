import numpy as np
import pytest
import xarray as xr

from phenoscope.studies.empirical import triple_descent as module

OBSERVABLES = module.study.observables
NS = [10, 30, 150, 600]
ERROR = {
    "identity": [1, 80, 3, 2],
    "tanh": [1, 9, 3, 24],
    "relu": [1, 6, 3, 48],
    "abs": [1, 2, 3, 60],
    module.ENSEMBLE.format(8): [1, 6, 2, 3],
    module.RIDGE: [1, 8, 3, 1],
}


def result(ns=NS, spread=0.0, seeds=5):
    shift = 1 + spread * (np.arange(seeds) - seeds // 2) / seeds
    values = np.array(list(ERROR.values()), dtype=float)[:, :, None] * shift
    found = xr.Dataset(
        {"error": (("setting", "n", "seed"), values), "d": 30, "p": 600},
        {"setting": list(ERROR), "n": NS, "seed": range(seeds)},
    )
    return found.sel(n=list(ns))


def test_the_observables_are_read_off_the_planted_medians():
    found = {claim: OBSERVABLES[claim](result(spread=0.5)) for claim in OBSERVABLES}
    assert all(value.dims == () for value in found.values())
    expected = {
        "identity-peaks-at-D-abs-at-P-identity": 80 / 2,
        "identity-peaks-at-D-abs-at-P-abs": 2 / 60,
        "ridge-kills-only-nonlinear-strong": 8 / 1,
        "ridge-kills-only-nonlinear-weak": 9 / 24,
        "two-peaks-coexist-linear": 9 / 3,
        "two-peaks-coexist-nonlinear": 24 / 3,
        "two-peaks-coexist-order": np.log(9 / 24) - np.log(6 / 48),  # the smallest of the three steps
    }
    for claim, value in expected.items():
        assert float(found[claim]) == pytest.approx(value), claim


def test_shrinking_by_ensemble_is_the_lower_end_of_a_bootstrap_over_seeds():
    exact = (24 / 3) / (9 / 6)
    # seeds that only scale all errors cancel: no spread
    assert float(OBSERVABLES["ensembling-kills-only-nonlinear"](result(spread=0.5))) == pytest.approx(exact)
    rng = np.random.default_rng(0)
    noisy = result(seeds=20)
    noisy["error"] = noisy.error * np.exp(0.4 * rng.normal(size=noisy.error.shape))
    low = float(OBSERVABLES["ensembling-kills-only-nonlinear"](noisy))
    names = ["tanh", module.ENSEMBLE.format(8)]
    table = [noisy.error.sel(n=n, setting=name).values for n in (600, 30) for name in names]
    drawn = []
    for _ in range(4000):
        seeds = rng.integers(20, size=20)
        one_p, all_p, one_d, all_d = (np.median(row[seeds]) for row in table)
        drawn.append(one_p / all_p / (one_d / all_d))
    assert low == pytest.approx(np.quantile(drawn, 0.025), rel=0.05)
    assert low < exact * 1.2


def test_what_a_run_lacks_does_not_apply():
    for claim in OBSERVABLES:
        assert "150" in OBSERVABLES[claim](result(ns=[10, 30, 600])).attrs["not_applicable"]
    few = result().drop_sel(setting=module.ENSEMBLE.format(8))
    assert "ensemble" in OBSERVABLES["ensembling-kills-only-nonlinear"](few).attrs["not_applicable"]


def test_every_setting_of_a_draw_sees_the_same_samples():
    from phenoscope.lab.map import Lab

    common = dict(d=6, p=24, ns=(4, 8), snr=0.5, seed=0)
    one, two = (module.one_draw(Lab(0), ensembles=ensembles, **common) for ensembles in (1, 3))
    np.testing.assert_array_equal(
        one.error.sel(setting=list(module.ACTIVATIONS)), two.error.sel(setting=list(module.ACTIVATIONS))
    )
    # the mean of one is that one
    np.testing.assert_array_equal(one.error.sel(setting="tanh"), one.error.sel(setting=module.ENSEMBLE.format(1)))
