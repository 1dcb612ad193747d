"""The bootstrap's interval: against formulas, against coverage, and where the data say little or nothing."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from phenoscope.core.errors import InputError
from phenoscope.stats import Interval, bootstrap


def test_many_values_give_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    interval = bootstrap(values, generator=0)
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    # A quantile of 10,000 resamples is uncertain by about 3 % of the interval's half width.
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_few_values_give_the_t_interval_which_is_wider():
    values = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    interval = bootstrap(values, generator=0)
    low, high = scipy_stats.t.interval(0.95, 4, values.mean(), scipy_stats.sem(values))
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = sum(
        i.low <= 0 <= i.high for i in (bootstrap(rng.normal(size=6), resamples=500, generator=s) for s in range(400))
    )
    assert 0.91 <= hits / 400 <= 0.99  # 0.95 +- about four standard errors of 400 trials


def test_other_statistics_and_levels_are_taken():
    values = np.random.default_rng(2).exponential(size=200)
    wide = bootstrap(values, np.median, level=0.99, generator=0)
    narrow = bootstrap(values, np.median, level=0.5, generator=0)
    assert wide.estimate == np.median(values)
    assert wide.low < narrow.low < wide.estimate < narrow.high < wide.high
    assert bootstrap(values, lambda x: float(np.max(x)), resamples=50, generator=0).high == values.max()


def test_equal_values_have_no_width_and_one_value_has_no_bounds():
    assert bootstrap([0.25] * 20) == Interval(0.25, 0.25, 0.25)
    assert bootstrap([0.25]) == Interval(0.25, -np.inf, np.inf)


def test_same_seed_same_interval():
    values = np.random.default_rng(3).normal(size=30)
    assert bootstrap(values, np.std, generator=7) == bootstrap(values, np.std, generator=np.random.default_rng(7))
    assert bootstrap(values, np.std, generator=7) != bootstrap(values, np.std, generator=8)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one"),
        ([[1.0, 2.0]], {}, "shape"),
        ([1.0, np.nan], {}, "value 1 is not finite"),
        ([1.0, 2.0], {"level": 1.0}, "level"),
        ([1.0, 2.0], {"resamples": 0}, "resamples"),
    ],
)
def test_bad_input_is_named(values, options, message):
    with pytest.raises(InputError, match=message):
        bootstrap(values, **options)


def test_no_torch_is_imported():
    code = "import sys, phenoscope.stats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_docstring_example_runs():
    # the package binds the function over its module's name, so the module is asked for by name
    assert doctest.testmod(sys.modules["phenoscope.stats.bootstrap"]).failed == 0
