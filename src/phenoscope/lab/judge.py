"""The judge: an observable against what was registered."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import xarray as xr

from ..core.errors import InputError
from ..stats import bootstrap
from .claim import Expectation

Verdict = Literal["holds", "refuted", "inconclusive", "not applicable"]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        verdict: "holds", "refuted", "inconclusive" or "not applicable".
        estimate: the value, or the mean over the unit.
        low, high: the 95 % interval of the mean; of a single value, the value itself.
        n: how many values there were.
        reason: why the claim does not apply.
    """

    verdict: Verdict
    estimate: float
    low: float
    high: float
    n: int
    reason: str = ""


def not_applicable(reason: str) -> xr.DataArray:
    """What an observable returns where its claim does not apply: no filter qualified, say."""
    return xr.DataArray(np.nan, attrs={"not_applicable": reason})


def judge(observable: xr.DataArray, expectation: str) -> Judgement:
    """Hold an observable against an expectation.

    With one dimension, the unit that is resampled, the 95 % interval of the mean must lie wholly inside the
    expectation to hold, and wholly outside to be refuted (`stats.bootstrap`: the wider of the percentile bootstrap with
    10,000 resamples and Student's t). One value of a unit is inconclusive. Without a
    dimension the value itself decides, which may be infinite.

    Args:
        observable: values along one dimension, or a single one; or what `not_applicable` gives.
        expectation: `> a`, `>= a`, `< a`, `<= a` or `in [a, b]`.

    Raises:
        InputError: more than one dimension, no values, NaN (named by its coordinate), or an infinite value among
            several; an expectation that is not of the grammar.
    """
    expected = Expectation.parse(expectation)
    reason = observable.attrs.get("not_applicable")
    if reason is not None:
        return Judgement("not applicable", np.nan, np.nan, np.nan, 0, str(reason))
    values = observable.to_numpy().astype(np.float64)
    if values.ndim > 1 or not values.size:
        raise InputError(f"an observable has one dimension or none, and values; this has {dict(observable.sizes)}")
    bad = ~np.isfinite(values) if values.ndim else np.isnan(values)
    if bad.any():
        raise InputError(f"the observable is {values[bad][0]} at {_cell(observable, bad)}")
    if not values.ndim:
        value = float(values)
        return Judgement("holds" if expected.holds(value, value) else "refuted", value, value, value, 1)
    estimate, low, high = bootstrap(values, generator=0)
    verdict: Verdict = "inconclusive"
    if len(values) > 1:
        verdict = "holds" if expected.holds(low, high) else "refuted" if expected.fails(low, high) else "inconclusive"
    return Judgement(verdict, float(estimate), float(low), float(high), len(values))


def _cell(observable: xr.DataArray, bad: np.ndarray) -> str:
    """Where the first bad value stands."""
    if not observable.ndim:
        return "its only value"
    (dim,), place = observable.dims, int(np.flatnonzero(bad)[0])
    return f"{dim} {observable[dim].values[place]}"
