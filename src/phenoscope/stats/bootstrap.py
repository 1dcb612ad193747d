"""Percentile bootstrap intervals, and Student's t beside them where it is the wider one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..core.errors import InputError

_BATCH = 10_000_000  # resampled numbers held at once


class Interval(NamedTuple):
    """A statistic of a sample, and the ends of its interval, in units of the values."""

    estimate: float
    low: float
    high: float


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    generator: np.random.Generator | int | None = None,
) -> Interval:
    """The interval of a statistic over independent values, by the percentile bootstrap.

    The values are drawn again with replacement `resamples` times; the interval runs from the (1 - level) / 2 to the
    (1 + level) / 2 quantile of the statistic over these samples. For a mean, Student's t interval, mean +- t s /
    sqrt(n), is taken instead where it is the wider of the two: the percentile interval is too narrow where values are
    few (of 30 normal values it errs on one side in about 3 % of cases instead of 2.5 %); of many the two agree.

    Args:
        values: one number for each unit that is resampled (seed, draw, image ...).
        statistic: from an array to a number; one that takes `axis`, like NumPy's own, is computed all at once.
        level: the share of intervals that should cover the truth.
        resamples: how many samples are drawn.
        generator: a NumPy generator or an integer seed; `None` draws a fresh one.

    Returns:
        The statistic and its interval. Values that are all equal give an interval of no width; a single value says
        nothing of its spread and gives (-inf, inf).

    Raises:
        InputError: no values, more than one dimension, NaN or infinity, a level outside (0, 1), no resamples.

    Examples:
        >>> bootstrap([2.0, 2.0, 2.0])
        Interval(estimate=2.0, low=2.0, high=2.0)
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise InputError(f"values must be a list of at least one number, not of shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise InputError(f"value {int(np.flatnonzero(~np.isfinite(sample))[0])} is not finite; leave such values out")
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, not {level!r}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples!r}")
    estimate = float(statistic(sample))
    if sample.size == 1:
        return Interval(estimate, -np.inf, np.inf)
    if (sample == sample[0]).all():
        return Interval(estimate, estimate, estimate)
    found = stats.bootstrap(
        (sample,), statistic, method="percentile", n_resamples=resamples, confidence_level=level,
        batch=max(1, _BATCH // sample.size), rng=np.random.default_rng(generator),
    ).confidence_interval  # fmt: skip
    low, high = float(found.low), float(found.high)
    if statistic is np.mean:
        half = float(stats.t.ppf((1 + level) / 2, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size))
        if 2 * half > high - low:
            low, high = estimate - half, estimate + half
    return Interval(estimate, low, high)
