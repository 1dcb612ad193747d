"""The judge: verdicts from values and expectations, and how seldom it errs on pure noise."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.lab import Expectation, judge, not_applicable


def values(*numbers, unit="seed"):
    return xr.DataArray(list(numbers), dims=unit, coords={unit: np.arange(len(numbers))})


@pytest.mark.parametrize(
    "expects,inside,outside",
    [
        ("> 0.5", [0.6, 1e9, math.inf], [0.5, 0.4, -math.inf]),
        (">= 0.5", [0.5, 0.6], [0.49]),
        ("< -0.5", [-0.6], [-0.5, 0]),
        ("<= 1e-3", [0.001, -5], [0.0011]),
        ("in [0.7, 1.4]", [0.7, 1, 1.4], [0.69, 1.41, math.inf]),
    ],
)
def test_a_single_value_holds_or_is_refuted(expects, inside, outside):
    for value in inside:
        assert judge(xr.DataArray(value), expects).verdict == "holds"
    for value in outside:
        assert judge(xr.DataArray(value), expects).verdict == "refuted"


@pytest.mark.parametrize(
    "text", ["", "0.5", "> ", "> x", "== 1", "in [2, 1]", "in (0, 1)", "> nan", ">0.5 or <0", "> inf"]
)
def test_what_is_no_expectation_is_refused(text):
    with pytest.raises(InputError, match="no expectation"):
        Expectation.parse(text)


@given(
    a=st.floats(-10, 10), b=st.floats(-10, 10), sign=st.sampled_from([">", ">=", "<", "<="]), bound=st.floats(-10, 10)
)
def test_an_interval_never_both_holds_and_fails_and_a_point_does_one_of_them(a, b, sign, bound):
    low, high = sorted((a, b))
    expected = Expectation.parse(f"{sign} {bound}")
    assert not (expected.holds(low, high) and expected.fails(low, high))
    assert expected.holds(a, a) != expected.fails(a, a)
    assert expected.holds(a, a) == {">": a > bound, ">=": a >= bound, "<": a < bound, "<=": a <= bound}[sign]


def test_an_interval_wholly_inside_holds_wholly_outside_is_refuted_and_else_is_inconclusive():
    sample = values(0.9, 1.0, 1.1, 1.05, 0.95)
    assert judge(sample, "> 0.5").verdict == "holds"
    assert judge(sample, "> 1.5").verdict == "refuted"
    assert judge(sample, "> 1").verdict == "inconclusive"
    assert judge(sample, "in [0.5, 1.5]").verdict == "holds"
    assert judge(sample, "in [1, 1.5]").verdict == "inconclusive"
    found = judge(sample, "> 0.5")
    assert found.n == 5 and found.estimate == pytest.approx(1.0) and found.low < 1 < found.high


def test_few_values_take_students_interval_where_it_is_wider():
    sample = values(1.0, 2.0, 3.0)
    half = 4.302652729911275 * 1.0 / math.sqrt(3)  # t quantile of 2 degrees of freedom, s = 1
    found = judge(sample, "> 0")
    assert (
        found.low == pytest.approx(2 - half)
        and found.high == pytest.approx(2 + half)
        and found.verdict == "inconclusive"
    )


def test_one_value_of_a_unit_is_inconclusive_however_large():
    assert judge(values(1e9), "> 0").verdict == "inconclusive"


def test_equal_values_are_judged_as_what_they_are():
    found = judge(values(0.5, 0.5, 0.5), "> 0.4")
    assert (found.verdict, found.low, found.high) == ("holds", 0.5, 0.5)
    assert judge(values(0.5, 0.5), "> 0.5").verdict == "refuted"


def test_the_same_values_always_give_the_same_interval():
    sample = values(*np.random.default_rng(0).normal(size=40))
    assert judge(sample, "> 0") == judge(sample, "> 0")


@pytest.mark.parametrize(
    "observable,message",
    [
        (values(1.0, math.nan), "nan at seed 1"),
        (values(1.0, math.inf), "inf at seed 1"),
        (xr.DataArray(math.nan), "nan at its only value"),
        (xr.DataArray(np.zeros((2, 2)), dims=("seed", "layer")), "one dimension or none"),
        (xr.DataArray(np.zeros(0), dims="seed"), "one dimension or none"),
    ],
)
def test_what_cannot_be_judged_is_an_error_that_names_the_cell_and_never_a_verdict(observable, message):
    with pytest.raises(InputError, match=message):
        judge(observable, "> 0")


def test_a_claim_that_does_not_apply_says_why():
    found = judge(not_applicable("no filter qualified"), "> 0")
    assert (found.verdict, found.reason, found.n) == ("not applicable", "no filter qualified", 0)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_pure_noise_holds_at_most_as_often_as_a_95_percent_interval_allows(n):
    trials = 1000
    noise = np.random.default_rng(n).normal(size=(trials, n))
    held = sum(judge(values(*row), "> 0").verdict == "holds" for row in noise)
    error = 3 * math.sqrt(0.025 * 0.975 / trials)  # of the count, three standard errors
    assert held / trials <= 0.025 + error
