"""Rank correlations, of plain lists and of labelled arrays along a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from ..core.errors import InputError


@overload
def spearman(a: xr.DataArray, b: xr.DataArray, *, dim: str) -> xr.DataArray: ...
@overload
def spearman(a: ArrayLike, b: ArrayLike, *, dim: None = None) -> float: ...
def spearman(a: Any, b: Any, *, dim: str | None = None) -> Any:
    """Spearman's rank correlation: Pearson's correlation of the ranks, ties sharing their mean rank.

    Args:
        a: numbers, or a labelled array.
        b: as many, or a labelled array that shares `dim`.
        dim: of labelled arrays, the dimension along which pairs run; the others remain, aligned by label.

    Returns:
        A number in [-1, 1], or a labelled array without `dim`; NaN where either side is constant.

    Raises:
        InputError: fewer than two pairs, differing lengths, NaN, or labelled arrays without `dim`.

    Examples:
        >>> spearman([1, 2, 3, 4], [1, 4, 9, 16])
        1.0
    """
    return _along(_spearman, a, b, dim)


@overload
def kendall(a: xr.DataArray, b: xr.DataArray, *, dim: str) -> xr.DataArray: ...
@overload
def kendall(a: ArrayLike, b: ArrayLike, *, dim: None = None) -> float: ...
def kendall(a: Any, b: Any, *, dim: str | None = None) -> Any:
    """Kendall's tau-b: the share of pairs in the same order minus that in opposite order, corrected for ties.

    Args:
        a: numbers, or a labelled array.
        b: as many, or a labelled array that shares `dim`.
        dim: of labelled arrays, the dimension along which pairs run; the others remain, aligned by label.

    Returns:
        A number in [-1, 1], or a labelled array without `dim`; NaN where either side is constant.

    Raises:
        InputError: fewer than two pairs, differing lengths, NaN, or labelled arrays without `dim`.

    Examples:
        >>> round(kendall([1, 2, 3], [1, 3, 2]), 6)
        0.333333
    """
    return _along(lambda x, y: float(stats.kendalltau(x, y).statistic), a, b, dim)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    size = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / size, -1, 1)) if size else float("nan")


def _along(correlate: Callable[[np.ndarray, np.ndarray], float], a: Any, b: Any, dim: str | None) -> Any:
    if isinstance(a, xr.DataArray) and isinstance(b, xr.DataArray):
        if dim is None or dim not in a.dims or dim not in b.dims:
            raise InputError(f"dim must be a dimension of both arrays, {a.dims} and {b.dims}, not {dim!r}")
        return xr.apply_ufunc(
            lambda x, y: _checked(correlate, x, y), a, b, input_core_dims=[[dim], [dim]], vectorize=True, join="exact"
        )
    if dim is not None:
        raise InputError("dim is for labelled arrays; leave it out for plain lists")
    return _checked(correlate, np.asarray(a, dtype=float), np.asarray(b, dtype=float))


def _checked(correlate: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray) -> float:
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InputError(f"ranks need two lists of one length of at least 2, not of shapes {x.shape} and {y.shape}")
    if np.isnan(x).any() or np.isnan(y).any():
        raise InputError("NaN has no rank; leave such pairs out")
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return correlate(x, y)
