"""Two runs of one architecture, layer by layer: what moved more in which, when each layer settled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import xarray as xr
from torch import Tensor

from ..core.errors import InputError
from .layers import Layer
from .run import Run
from .settling import settling

_MEANS = ("changed", "idle", "distance_per_weight")


def differences(first: Run, second: Run, *, threshold: float = 0.05, window: int = 5) -> xr.Dataset:
    """Compare two runs of the same architecture.

    Args:
        first, second: recorded runs; layers that only one of them has are left out and remarked on.
        threshold, window: of `settling`.

    Returns:
        Over `run` (0 and 1) and `layer`: `changed`, `idle` and `distance_per_weight`, means of the layer's S_t, Z_t
        and D_t per weight over the records up to the earlier end; `settled` and `below` as `settling` gives them.
        Over `layer`: `likeness`, Spearman's rank correlation of the filters' mean distance in one run with that in
        the other (1: the same filters move most; it asks for equal starts, or chance numbers them anew); `apart`, the
        distance of the final weights over the geometric mean of their norms, ||a - b|| / sqrt(||a|| ||b||) (NaN where
        a run kept no final state). Attributes: `remarks`, sentences on what makes the runs less comparable; `until`,
        the last step of the means.

    Raises:
        InputError: no common layer, a layer of another shape, or a run without a record.
    """
    names = [name for name in first.layers if name in second.layers]
    if not names:
        raise InputError(f"{first.path} and {second.path} have no layer in common: they are of different networks")
    for name in names:
        shapes = [tuple(run.layers[name].shape) for run in (first, second)]
        if shapes[0] != shapes[1] or len(first.layers[name]) != len(second.layers[name]):
            raise InputError(
                f"layer {name!r} has shape {shapes[0]} in {first.path} and {shapes[1]} in {second.path}: "
                "only runs of one architecture can be compared"
            )
    runs = (first, second)
    for run in runs:
        if not len(run.steps):
            raise InputError(f"{run.path} has no records yet; let the training go on")
    until = int(min(run.steps[-1] for run in runs))
    remarks = _remarks(first, second, names)
    values = {key: (("run", "layer"), np.stack([_mean(run, key, names, until) for run in runs])) for key in _MEANS}
    found = [_settled(run, names, threshold, window, remarks) for run in runs]
    for key in ("settled", "below"):
        values[key] = (("run", "layer"), np.stack([each[key] for each in found]))
    by_layer = {
        "likeness": [_likeness(first, second, name) for name in names],
        "apart": _apart(first, second, names),
    }
    return xr.Dataset(
        values | {key: ("layer", np.array(each, float)) for key, each in by_layer.items()},
        coords={"run": [0, 1], "layer": names},
        attrs={"remarks": remarks, "until": until, "threshold": threshold, "window": window},
    )


def _mean(run: Run, key: str, names: list[str], until: int) -> np.ndarray:
    means = run.means[key].sel(layer=names)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a layer that only holds gaps
        return means.where(means["step"] <= until, drop=True).mean("step").to_numpy()


def _settled(run: Run, names: list[str], threshold: float, window: int, remarks: list[str]) -> Mapping[str, np.ndarray]:
    if len(run.steps) < window:
        remarks.append(f"{run.path.name} has too few records to say when layers settled.")
        return dict.fromkeys(("settled", "below"), np.full(len(names), np.nan))
    found = settling(run, threshold=threshold, window=window).sel(layer=names)
    return {key: found[key].to_numpy() for key in ("settled", "below")}


def _likeness(first: Run, second: Run, name: str) -> float:
    from scipy.stats import rankdata

    ranks = []
    for run in (first, second):
        mean = run.mean_distance[name]
        if not np.isfinite(mean).all() or np.ptp(mean) == 0:
            return float("nan")
        ranks.append(rankdata(mean))
    return float(np.corrcoef(*ranks)[0, 1])


def _apart(first: Run, second: Run, names: list[str]) -> list[float]:
    try:
        states = [run.final() for run in (first, second)]
    except InputError:
        return [float("nan")] * len(names)
    return [_distance(first.layers[name], *states) for name in names]


def _distance(layer: Layer, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    if layer.parameter not in a or layer.parameter not in b:
        return float("nan")
    one, other = (layer.blocks(state[layer.parameter]).double() for state in (a, b))
    size = float(one.norm() * other.norm()) ** 0.5
    return float((one - other).norm()) / size if size else float("nan")


def _remarks(first: Run, second: Run, names: list[str]) -> list[str]:
    """What makes the numbers of two runs less comparable."""
    said = []
    for run, other in ((first, second), (second, first)):
        only = [name for name in run.layers if name not in other.layers]
        if only:
            more = " ..." if len(only) > 3 else ""
            said.append(f"{len(only)} layers are only in {run.path.name}: {', '.join(only[:3])}{more}.")
    taus = [{name: run.thresholds[name] for name in names} for run in (first, second)]
    if taus[0] != taus[1]:
        said.append("The thresholds differ, so that changed and idle shares mean different things in the two runs.")
    every = [run.metadata.get("every") for run in (first, second)]
    if every[0] != every[1]:
        said.append(
            f"One run was recorded every {every[0]} updates, the other every {every[1]}: movements of longer windows "
            "are larger."
        )
    ends = [int(run.steps[-1]) for run in (first, second)]
    if ends[0] != ends[1]:
        said.append(f"The runs end at steps {ends[0]} and {ends[1]}; means are over the steps up to {min(ends)}.")
    return said
