"""Fewer points than there are records: means over bins of neighbours."""

from __future__ import annotations

import numpy as np


def edges(count: int, most: int) -> np.ndarray:
    """Where each of at most `most` bins of equal size starts among `count` items."""
    bins = max(1, min(count, most))
    return np.arange(bins) * count // bins


def bin_means(values: np.ndarray, starts: np.ndarray, axis: int = 0, weights: np.ndarray | None = None) -> np.ndarray:
    """Means over the bins along an axis, missing values left out; NaN where a bin has none.

    Args:
        weights: one for each place along the axis.
    """
    values = np.moveaxis(values, axis, 0)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    heavy = weights.reshape(-1, *[1] * (values.ndim - 1))
    there = np.isfinite(values)
    total = np.add.reduceat(np.where(there, values, 0) * heavy, starts, axis=0)
    count = np.add.reduceat(there * heavy, starts, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.moveaxis(total / count, 0, axis)
