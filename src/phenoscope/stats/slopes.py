"""Straight lines through logarithms: power laws and exponential decays, with intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..core.errors import InputError


class Slope(NamedTuple):
    """A fitted line.

    Attributes:
        estimate: its slope.
        low: lower end of the slope's interval.
        high: upper end.
        intercept: the line's value at zero.
        r2: the share of variance that the line accounts for.
    """

    estimate: float
    low: float
    high: float
    intercept: float
    r2: float


def loglog_slope(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Slope:
    """The exponent a of a power law y = b x^a: the least-squares slope of ln y against ln x.

    Args:
        x: positive numbers.
        y: as many positive numbers.
        level: of the interval, Student's t with n - 2 degrees of freedom; with two points it is (-inf, inf).

    Returns:
        The slope; `intercept` is ln b.

    Raises:
        InputError: fewer than two different x, numbers that are not positive and finite, or differing lengths.

    Examples:
        >>> round(loglog_slope([1, 2, 4, 8], [3, 12, 48, 192]).estimate, 9)
        2.0
    """
    return _line(_logs("x", x), _logs("y", y), level)


def decay_rate(
    values: ArrayLike, at: ArrayLike | None = None, *, above: float | None = None, level: float = 0.95
) -> Slope:
    """The rate r of an exponential decay b exp(-r t): minus the least-squares slope of ln values against t.

    Args:
        values: positive numbers in the order of time (steps, layers ...).
        at: their times; 0, 1, 2 ... if `None`.
        above: fit only the values before the first one at or below this share of the first value, so that a floor of
            noise does not flatten the line.
        level: of the interval, Student's t with n - 2 degrees of freedom; with two points it is (-inf, inf).

    Returns:
        The rate, positive where values fall; `intercept` is ln b.

    Raises:
        InputError: fewer than two values to fit, values that are not positive and finite, or differing lengths.

    Examples:
        >>> round(decay_rate([8.0, 4.0, 2.0, 1.0]).estimate, 6)
        0.693147
    """
    numbers = np.asarray(values, dtype=np.float64)
    times = np.arange(numbers.size, dtype=np.float64) if at is None else np.asarray(at, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != times.shape:
        raise InputError(f"values and times must be lists of one length, not of shapes {numbers.shape}, {times.shape}")
    if above is not None and numbers.size:
        low = np.flatnonzero(numbers <= above * numbers[0])
        end = low[0] if low.size else numbers.size
        numbers, times = numbers[:end], times[:end]
    line = _line(times, _logs("values", numbers), level)
    return Slope(-line.estimate, -line.high, -line.low, line.intercept, line.r2)


def _logs(name: str, values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        bad = numbers[~(np.isfinite(numbers) & (numbers > 0))].flat[0]
        raise InputError(f"{name} must be positive and finite to have a logarithm, not {bad!r}")
    return np.log(numbers)


def _line(x: np.ndarray, y: np.ndarray, level: float) -> Slope:
    if x.ndim != 1 or x.shape != y.shape or np.unique(x).size < 2:
        raise InputError(f"a line needs at least two different points; got shapes {x.shape} and {y.shape}")
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, not {level!r}")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    rest = dy - slope * dx
    total = float(dy @ dy)
    half = np.inf
    if x.size > 2:
        half = float(stats.t.ppf((1 + level) / 2, x.size - 2) * np.sqrt(rest @ rest / (x.size - 2) / (dx @ dx)))
    r2 = 1 - float(rest @ rest) / total if total else 1.0
    return Slope(slope, slope - half, slope + half, float(y.mean() - slope * x.mean()), r2)
