"""Every filter of a layer at every step, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from ...core.errors import InputError
from ..run import Run
from .bins import bin_means, edges
from .controls import Choice, menu
from .names import check_layers, label
from .packed import packed
from .palette import spread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CELLS = 280_000  # in the whole figure: about 1.5 MB of page
_LAYERS = 16
# name on the menu, measure, title of the colour bar
_MEASURES = [
    ("changed", "changed", "changed share"),
    ("idle", "idle", "idle share"),
    ("distance per weight", "distance_per_weight", "distance<br>per weight"),
    ("log distance", "distance", "log10 of<br>raw distance"),
]


class _Map(NamedTuple):
    steps: np.ndarray
    filters: list[str]
    values: np.ndarray  # (filters, steps)
    low: float | None
    high: float | None


def heatmap(run: Run, layers: Sequence[str] | None = None) -> Figure:
    """A measure of every filter (down) at every step (across), for one layer at a time.

    Menus choose the layer and the measure: changed share, idle share, distance per weight, log10 of the raw distance.
    Filters are sorted by their time-mean of the measure shown, the largest on top. Steps, and filters of neighbouring
    rank, are averaged in bins where there are many, so that the whole figure stays below 300,000 cells. The colours of
    the distance per weight end at its 99 % quantile.

    Args:
        run: a recorded run.
        layers: names of the layers to choose from; by default up to 16 spread over the depth.

    Raises:
        InputError: a layer that the run does not have, or a run without any record.
    """
    from plotly.graph_objects import Figure

    if layers is not None:
        check_layers(layers, [run])
    names = list(layers) if layers else spread(list(run.layers), _LAYERS)
    if not run.means.sizes["step"]:
        raise InputError(f"{run.path} has no records yet; let the training go on and open it again")
    budget = CELLS // (len(_MEASURES) * len(names))
    maps = {name: _maps(run[name], budget) for name in names}
    figure = Figure()
    for index, ((_, _, title), shown) in enumerate(zip(_MEASURES, maps[names[0]], strict=True)):
        figure.add_heatmap(
            x=shown.steps,
            y=shown.filters,
            z=shown.values,
            zmin=shown.low,
            zmax=shown.high,
            visible=index == 0,
            colorscale="Viridis",
            colorbar={"title": {"text": title, "font": {"size": 11}}, "thickness": 12, "outlinewidth": 0},
            hovertemplate="filter %{y}<br>step %{x}<br>%{z:.3g}<extra></extra>",
        )
    by_layer = [Choice(label(name), "update", _show(maps[name])) for name in names]
    by_measure = [
        Choice(name, "restyle", [{"visible": [i == index for i in range(len(_MEASURES))]}])
        for index, (name, _, _) in enumerate(_MEASURES)
    ]
    figure.update_layout(
        updatemenus=[menu("layer", by_layer, place=0), menu("measure", by_measure, place=0.5)],
        xaxis={"title": {"text": "step", "font": {"size": 12}}},
        yaxis={
            "title": {"text": "filter, the largest mean on top", "font": {"size": 12}},
            "type": "category",
            "autorange": "reversed",
            "nticks": 16,
        },
        height=520,
        margin={"l": 70, "r": 16, "t": 80, "b": 50},
    )
    return figure


def _show(maps: list[_Map]) -> list[dict[str, Any]]:
    """The arguments that put another layer into the figure, and undo a zoom."""
    data = {
        "x": [shown.steps.tolist() for shown in maps],
        "y": [shown.filters for shown in maps],
        "z": [packed(shown.values) for shown in maps],
        "zmin": [shown.low for shown in maps],
        "zmax": [shown.high for shown in maps],
    }
    return [data, {"yaxis.autorange": "reversed", "xaxis.autorange": True}]


def _maps(layer: xr.Dataset, budget: int) -> list[_Map]:
    """One map a measure, each of at most `budget` cells."""
    records, filters = layer.sizes["step"], layer.sizes["filter"]
    rows = min(filters, max(1, isqrt(budget // 2)))
    across, down = edges(records, budget // rows), edges(filters, rows)
    weight = layer["weight"].to_numpy()
    steps = bin_means(layer["step"].to_numpy().astype(float), across).round(1)
    maps = []
    for _, measure, _ in _MEASURES:
        values = layer[measure].to_numpy()
        mean = bin_means(values, np.array([0]), weights=weight)[0]
        order = np.argsort(-mean, kind="stable")
        binned = bin_means(bin_means(values, across, weights=weight).T[order], down)
        low, high = (0.0, 1.0) if measure in ("changed", "idle") else (None, None)
        if measure == "distance":
            binned = np.log10(np.where(binned > 0, binned, np.nan))
        elif measure == "distance_per_weight" and np.isfinite(binned).any():
            low, high = 0.0, float(np.nanquantile(binned, 0.99)) or 1.0
        maps.append(_Map(steps, _filter_names(order, down), binned.astype(np.float32), low, high))
    return maps


def _filter_names(order: np.ndarray, starts: np.ndarray) -> list[str]:
    groups = np.split(order, starts[1:])
    return [str(group[0]) if len(group) == 1 else f"{group[0]} and {len(group) - 1} more" for group in groups]
