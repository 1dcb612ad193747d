"""The time-averaged distance of every filter, sorted, by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..run import Run
from .controls import Choice, menu, scale_menu
from .names import check_layers, label
from .packed import packed
from .palette import by_depth, spread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TITLES = {"distance": "raw distance, mean over time", "distance_per_weight": "distance per weight, mean over time"}
_POINTS = 256  # a line
_SHOWN, _MOST = 6, 40


def sorted_distance(run: Run, layers: Sequence[str] | None = None) -> Figure:
    """Time-averaged distance of every filter of a layer, from the largest to the smallest; one line a layer.

    The x axis is a filter's rank as a share of the layer (0 the most, 1 the least evolved), so that layers of any size
    can be compared. Menus choose raw distance or distance per weight, and log or linear axes. A layer with more than
    256 filters is shown by 256 of them, evenly spread over the ranks.

    Args:
        run: a recorded run.
        layers: names of the layers shown at first; by default six spread over the depth. Others, up to 40 in all,
            wait in the legend.

    Raises:
        InputError: a layer that the run does not have, or a run without any record.
    """
    from plotly.graph_objects import Figure

    if layers is not None:
        check_layers(layers, [run])
    if not run.means.sizes["step"]:
        raise InputError(f"{run.path} has no records yet; let the training go on and open it again")
    names = list(run.layers)
    shown = spread(names, _SHOWN) if layers is None else [name for name in names if name in layers]
    waiting = [name for name in names if name not in shown]
    offered = [name for name in names if name in {*shown, *spread(waiting, max(0, _MOST - len(shown)))}]
    colors = dict(zip(names, by_depth(len(names)), strict=True))
    figure = Figure()
    lines: dict[str, list[np.ndarray]] = {measure: [] for measure in _TITLES}
    for name in offered:
        ranks, values = _sorted(run, name)
        for measure, line in lines.items():
            line.append(values[measure])
        figure.add_scatter(
            x=ranks,
            y=values["distance"],
            name=label(name),
            mode="lines" if len(ranks) > 1 else "markers",
            line={"color": colors[name], "width": 1.8},
            visible=True if name in shown else "legendonly",
            hovertemplate="%{fullData.name}<br>rank %{x:.0%} of the layer: %{y:.3g}<extra></extra>",
        )
    choices = [
        Choice(short, "update", [{"y": [packed(y) for y in lines[measure]]}, {"yaxis.title.text": _TITLES[measure]}])
        for short, measure in [("raw", "distance"), ("per weight", "distance_per_weight")]
    ]
    figure.update_layout(
        updatemenus=[
            menu("distance", choices, place=0),
            scale_menu("distance axis", ["yaxis"], place=0.3, start="log"),
            scale_menu("rank axis", ["xaxis"], place=0.65),
        ],
        xaxis={"title": {"text": "rank of the filter in its layer", "font": {"size": 12}}, "tickformat": ".0%"},
        yaxis={
            "title": {"text": _TITLES["distance"], "font": {"size": 12}},
            "type": "log",
            "tickformat": ".2~e",
            "nticks": 6,
        },
        showlegend=True,
        height=480,
        margin={"l": 70, "r": 16, "t": 80, "b": 50},
        hovermode="closest",
    )
    return figure


def _sorted(run: Run, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    means = run.average(name)
    order = np.argsort(-means["distance"].to_numpy(), kind="stable")
    picked = np.array(spread(range(len(order)), _POINTS))
    ranks = (picked + 0.5) / len(order)
    values = {measure: means[measure].to_numpy()[order[picked]].astype(np.float32) for measure in _TITLES}
    return ranks.astype(np.float32), values
