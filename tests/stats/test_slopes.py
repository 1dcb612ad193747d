import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from phenoscope import stats
from phenoscope.core.errors import InputError


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_a_power_law_has_its_exponent(power, factor):
    x = np.array([1.0, 2, 5, 9, 40])
    found = stats.loglog_slope(x, factor * x**power)
    assert found.estimate == pytest.approx(power, abs=1e-9) and found.intercept == pytest.approx(
        np.log(factor), abs=1e-9
    )


def test_the_line_and_its_interval_are_scipys():
    generator = np.random.default_rng(0)
    x, y = np.exp(generator.normal(size=12)), np.exp(generator.normal(size=12))
    found, line = stats.loglog_slope(x, y), scipy_stats.linregress(np.log(x), np.log(y))
    half = scipy_stats.t.ppf(0.975, 10) * line.stderr
    assert found == pytest.approx((line.slope, line.slope - half, line.slope + half, line.intercept, line.rvalue**2))


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator, x = np.random.default_rng(0), np.arange(1.0, 9)
    covered = 0
    for _ in range(500):
        low, high = stats.loglog_slope(x, x**0.7 * np.exp(0.3 * generator.normal(size=8)))[1:3]
        covered += low <= 0.7 <= high
    assert 0.92 < covered / 500 < 0.98  # a binomial share of 0.95 strays by 0.01


def test_a_decay_has_its_rate_whatever_the_times():
    at = np.array([0.0, 1, 4, 6])
    found = stats.decay_rate(5 * np.exp(-0.3 * at), at)
    assert found.estimate == pytest.approx(0.3) and found.intercept == pytest.approx(np.log(5))
    noisy = stats.decay_rate(np.exp(-0.3 * at + np.array([0, 0.1, -0.1, 0])), at)
    assert noisy.low < noisy.estimate < noisy.high


def test_a_floor_can_be_left_out():
    values = np.exp(-0.5 * np.arange(30)) + 1e-4
    assert stats.decay_rate(values).estimate < 0.4
    assert stats.decay_rate(values, above=0.01).estimate == pytest.approx(0.5, rel=0.01)


def test_two_points_make_a_line_without_an_interval():
    assert stats.loglog_slope([1, 2], [1, 4])[:3] == (pytest.approx(2), -np.inf, np.inf)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="y must be positive and finite"):
        stats.loglog_slope([1, 2, 3], [1, 0, 2])
    with pytest.raises(InputError, match="two different points"):
        stats.loglog_slope([2, 2], [1, 3])
    with pytest.raises(InputError, match="one length"):
        stats.decay_rate([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="level"):
        stats.loglog_slope([1, 2, 3], [1, 2, 3], level=1)
