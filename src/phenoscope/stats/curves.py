"""Peaks and valleys of a noisy curve."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import signal

from ..core.errors import InputError
from .bootstrap import Interval


class TurningPoint(NamedTuple):
    """A peak or a valley of a curve.

    Attributes:
        kind: "peak" or "valley".
        at: where it is.
        value: of the curve there, with its interval.
        prominence: how far it stands out, with its interval at the same place.
        place: where it is, with the interval of the place of the largest (smallest) value between its neighbors.
    """

    kind: Literal["peak", "valley"]
    at: float
    value: Interval
    prominence: Interval
    place: Interval


def turning_points(
    curve: ArrayLike,
    at: ArrayLike | None = None,
    *,
    prominence: float = 1.15,
    ratio: bool = True,
    statistic: Callable[..., Any] = np.median,
    level: float = 0.95,
    resamples: int = 1000,
    generator: np.random.Generator | int | None = None,
) -> list[TurningPoint]:
    """The peaks and valleys of a curve that stand out, with bootstrap intervals over repetitions.

    The prominence of a peak is the smaller, over its two sides, of its height above the lowest value between it and the
    next higher point or the end; a valley's is that of the curve turned over. Ends are no turning points; of several
    equal values in a row the middle one is.

    Args:
        curve: values (points,), or (repetitions, points), of which `statistic` makes the curve.
        at: places of the points, ascending; 0, 1, 2 ... if `None`.
        prominence: the least that counts.
        ratio: heights are ratios, for positive values; otherwise differences.
        statistic: of repetitions, called with `axis=0`.
        level: of the intervals.
        resamples: how often repetitions are drawn again.
        generator: a NumPy generator or an integer seed.

    Returns:
        Turning points in the order of their places. From one repetition intervals are (-inf, inf).

    Raises:
        InputError: shapes that do not match, places that do not ascend, values that are not finite, or that are not
            positive where ratios are asked for.

    Examples:
        >>> [(point.kind, point.at) for point in turning_points([4, 1, 5, 2, 2.1, 1], at=[1, 2, 4, 8, 16, 32])]
        [('valley', 2.0), ('peak', 4.0)]
    """
    values = np.atleast_2d(np.asarray(curve, dtype=np.float64))
    places = np.arange(values.shape[-1], dtype=np.float64) if at is None else np.asarray(at, dtype=np.float64)
    if values.ndim != 2 or not values.size or places.shape != values.shape[1:]:
        raise InputError(f"a curve is (points,) or (repetitions, points), one place each, not {np.shape(curve)}")
    if not (np.diff(places) > 0).all():
        raise InputError("the places of a curve must ascend")
    if not np.isfinite(values).all() or (ratio and not (values > 0).all()):
        raise InputError("values must be finite, and positive for ratios: use ratio=False")
    if not 0 < level < 1 or resamples < 1 or prominence < (1 if ratio else 0):
        raise InputError("level lies between 0 and 1, resamples are at least 1, a ratio at least 1, a difference 0")

    def seen(rows: np.ndarray) -> np.ndarray:
        return np.log(statistic(rows, axis=0)) if ratio else np.asarray(statistic(rows, axis=0))

    line = seen(values)
    least = np.log(prominence) if ratio else prominence
    turns = sorted(
        (int(place), sign) for sign in (1, -1) for place in signal.find_peaks(sign * line, prominence=least)[0]
    )
    rng, count = np.random.default_rng(generator), len(values)
    drawn = None
    if count > 1:
        drawn = np.stack([seen(values[rng.integers(count, size=count)]) for _ in range(resamples)])
    ends = [0, *(place for place, _ in turns), len(line) - 1]
    found = []
    for (place, sign), before, after in zip(turns, ends, ends[2:], strict=False):
        low, high = np.full(3, -np.inf), np.full(3, np.inf)
        if drawn is not None:
            again = _facts(drawn, place, sign, places, before, after, ratio)
            low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2], axis=1)
        estimates = _facts(line[None], place, sign, places, before, after, ratio)[:, 0]
        value, stands_out, where = (Interval(*map(float, each)) for each in zip(estimates, low, high, strict=True))
        where = where._replace(estimate=float(places[place]))  # of several equal values the middle one
        found.append(TurningPoint("peak" if sign > 0 else "valley", where.estimate, value, stands_out, where))
    return found


def _facts(
    curves: np.ndarray, place: int, sign: int, places: np.ndarray, before: int, after: int, logs: bool
) -> np.ndarray:
    """(3, curves): value and prominence at a place, and where between two others the curve is extreme."""
    extreme = before + np.argmax(sign * curves[:, before : after + 1], axis=1)
    heights = np.stack([curves[:, place], _prominence(sign * curves, place)])
    return np.stack([*(np.exp(heights) if logs else heights), places[extreme]])


def _prominence(curves: np.ndarray, place: int) -> np.ndarray:
    """How far each curve stands out at a place; 0 where it has no peak there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, of a place that is no peak
        return np.array([signal.peak_prominences(curve, [place])[0][0] for curve in curves])
