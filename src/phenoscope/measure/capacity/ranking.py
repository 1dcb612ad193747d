"""How well measures of complexity rank networks by how they generalize."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import InputError

if TYPE_CHECKING:
    import xarray


def rank_complexity(
    values: ArrayLike | xarray.DataArray,
    gaps: ArrayLike,
    hyperparameters: Mapping[str, Sequence[Any]],
    *,
    unscored: Sequence[str] = (),
) -> xarray.Dataset:
    """Rank correlations of measures with the generalization gap, after Jiang et al. (ICLR 2020, section 2).

    tau is the mean of sign(mu_i - mu_j) sign(g_i - g_j) over all ordered pairs of networks, ties counting 0. The
    granulated score takes it within groups of networks that differ in one hyperparameter only, so that a measure that
    follows another one gains nothing: psi of an axis is the mean over its groups, Psi the mean of psi over axes.
    The information is I(V_mu; V_g | U_S) / H(V_g | U_S) over all ordered pairs, V the sign of a difference and U_S the
    values of the hyperparameters S of both networks, and K the least of it over all S of at most two.

    Args:
        values: of one measure (networks,), or of several (measures, networks); NaN where a measure is not defined: that
            network is left out for that measure.
        gaps: training minus test accuracy, or any other number to be ranked, (networks,).
        hyperparameters: name -> its value for every network.
        unscored: of these, the ones that networks of a group share but that are not scored themselves, such as a seed.

    Returns:
        Over `measure`, with the names of `values` where it is labeled: `tau`; `psi` over `axis`; `Psi`; `information`
        (K) and `given`, the S that it belongs to; `networks`, how many were ranked. Over `group`: `group_tau`, and the
        coordinates `group_axis` and `group_setting`. NaN where no group has two networks, or where all gaps agree.

    Raises:
        InputError: lengths that differ, no hyperparameter to score, gaps that are NaN, or fewer than two networks.

    Examples:
        >>> found = rank_complexity([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3], {"width": [1, 2, 1, 2], "depth": [1, 1, 2, 2]})
        >>> found.psi.values.tolist(), found.Psi.item()
        ([[0.0, 1.0]], 0.5)
    """
    import xarray

    names, table = _table(values)
    gap = np.asarray(gaps, dtype=float)
    codes = _codes(hyperparameters, len(gap))
    axes = [name for name in codes if name not in unscored]
    if unknown := set(unscored) - set(codes):
        raise InputError(f"unscored names {min(unknown)!r}, which is no hyperparameter")
    if not axes or len(gap) < 2 or gap.ndim != 1 or table.shape[1] != len(gap):
        raise InputError(
            f"ranking needs two networks and a hyperparameter to score; values have shape {table.shape}, "
            f"gaps {gap.shape}"
        )
    if np.isnan(gap).any():
        raise InputError("a gap is NaN: leave that network out")
    groups = [(axis, rows) for axis in axes for rows in _groups(codes, axis)]
    group_tau = np.array([[_tau(row[rows], gap[rows]) for _, rows in groups] for row in table])
    group_tau = group_tau.reshape(len(table), len(groups))
    psi = np.stack([_mean(group_tau[:, [name == axis for name, _ in groups]]) for axis in axes], 1)
    sets = [chosen for size in (0, 1, 2) for chosen in itertools.combinations(axes, size)]
    information = [_least_information(row, gap, codes, sets) for row in table]
    settings = [
        ", ".join(f"{name}={hyperparameters[name][rows[0]]}" for name in codes if name != axis) for axis, rows in groups
    ]
    return xarray.Dataset(
        {
            "tau": ("measure", [_tau(row, gap) for row in table]),
            "psi": (("measure", "axis"), psi),
            "Psi": ("measure", _mean(psi)),
            "information": ("measure", [value for value, _ in information]),
            "given": ("measure", [" and ".join(given) for _, given in information]),
            "networks": ("measure", np.isfinite(table).sum(1)),
            "group_tau": (("measure", "group"), group_tau),
        },
        {
            "measure": names,
            "axis": axes,
            "group_axis": ("group", [axis for axis, _ in groups]),
            "group_setting": ("group", settings),
        },
    )


def _table(values: Any) -> tuple[list[Any], np.ndarray]:
    names = None
    if hasattr(values, "dims") and "measure" in values.dims:
        names = values["measure"].values.tolist()
        values = values.transpose("measure", ...)
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2:
        raise InputError(f"values are (networks,) or (measures, networks), not of shape {table.shape}")
    return list(range(len(table))) if names is None else names, table


def _codes(hyperparameters: Mapping[str, Sequence[Any]], networks: int) -> dict[str, np.ndarray]:
    """Which of an axis' values each network has, as a number from 0."""
    codes = {}
    for name, column in hyperparameters.items():
        if len(column) != networks:
            raise InputError(f"there are {len(column)} values of {name!r} for {networks} networks")
        seen: dict[Any, int] = {}
        items = [item.item() if isinstance(item, np.generic) else item for item in column]
        codes[name] = np.array([seen.setdefault(item, len(seen)) for item in items], dtype=int)
    return codes


def _groups(codes: Mapping[str, np.ndarray], axis: str) -> Iterator[np.ndarray]:
    """Networks that share everything but the axis, two at least."""
    others = [code for name, code in codes.items() if name != axis]
    key = np.stack([*others, np.zeros_like(codes[axis])], 1)
    _, which = np.unique(key, axis=0, return_inverse=True)
    for number in range(which.max() + 1):
        rows = np.flatnonzero(which == number)
        if len(rows) > 1:
            yield rows


def _tau(measure: np.ndarray, gap: np.ndarray) -> float:
    there = np.isfinite(measure)
    measure, gap = measure[there], gap[there]
    n = len(gap)
    if n < 2:
        return np.nan
    return float((_signs(measure) * _signs(gap)).sum()) / (n * (n - 1))


def _signs(values: np.ndarray) -> np.ndarray:
    return np.sign(values[:, None] - values[None, :])


def _mean(values: np.ndarray) -> np.ndarray:
    """Along the last axis, of what is not NaN."""
    there = ~np.isnan(values)
    count = there.sum(-1)
    total = np.where(there, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _least_information(
    measure: np.ndarray, gap: np.ndarray, codes: Mapping[str, np.ndarray], sets: Sequence[tuple[str, ...]]
) -> tuple[float, tuple[str, ...]]:
    there = np.isfinite(measure)
    n = int(there.sum())
    if n < 2:
        return np.nan, ()
    first, second = np.nonzero(~np.eye(n, dtype=bool))
    by_measure, by_gap = (_signs(values[there])[first, second].astype(int) + 1 for values in (measure, gap))
    found = []
    for chosen in sets:
        cell = np.zeros(n, dtype=int)
        for name in chosen:
            cell = cell * (codes[name].max() + 1) + codes[name][there]
        pair = cell[first] * (cell.max() + 1) + cell[second]
        share = _conditional_information(by_measure, by_gap, pair)
        if not np.isnan(share):
            found.append((share, chosen))
    return min(found, default=(np.nan, ()), key=lambda each: each[0])


def _conditional_information(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """I(a; b | given) / H(b | given) of what is observed, a and b from 0 to 2; NaN where b holds no information."""
    _, where = np.unique(given, return_inverse=True)
    counts = np.bincount(where * 9 + a * 3 + b, minlength=9 * (where.max() + 1)).reshape(-1, 3, 3)
    all_three = _entropy(counts)
    only_a, only_b = _entropy(counts.sum(2)), _entropy(counts.sum(1))
    condition = _entropy(counts.sum((1, 2)))
    left = only_b - condition
    return float((only_a + only_b - all_three - condition) / left) if left > 1e-12 else np.nan


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
