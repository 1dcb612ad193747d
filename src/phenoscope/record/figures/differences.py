"""Two runs of one architecture beside each other, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .names import label
from .palette import ACCENT, NEUTRAL, SECOND, spread
from .stack import stack

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LAYERS = 80
_PANELS = [
    ("changed", "mean changed share", "linear"),
    ("distance_per_weight", "mean distance per weight", "log"),
    ("settled", "step of settling", "linear"),
]


def differences(data: xr.Dataset, names: Sequence[str] = ("first", "second")) -> Figure:
    """Each layer's changed share, distance per weight and step of settling, one dot a run, joined by a line.

    A layer that did not settle has no dot in the third panel. Of many layers 80 are shown, spread over the depth.

    Args:
        data: as `record.differences` gives it.
        names: of the two runs.
    """
    from plotly.subplots import make_subplots

    at = data.isel(layer=spread(range(data.sizes["layer"]), _LAYERS))
    layers = [label(name) for name in at["layer"].values]
    rows = list(range(len(layers)))
    figure = make_subplots(
        rows=1,
        cols=len(_PANELS),
        shared_yaxes=True,
        column_titles=[title for _, title, _ in _PANELS],
        horizontal_spacing=0.03,
    )
    for column, (key, title, scale) in enumerate(_PANELS, 1):
        pair = at[key].to_numpy()
        figure.add_scatter(
            x=[value for row in rows for value in (pair[0, row], pair[1, row], None)],
            y=[value for row in rows for value in (row, row, None)],
            mode="lines",
            line={"color": NEUTRAL, "width": 1.4},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )
        for run, (name, color) in enumerate(zip(names, (ACCENT, SECOND), strict=True)):
            figure.add_scatter(
                x=pair[run],
                y=rows,
                text=layers,
                name=label(name),
                mode="markers",
                marker={"color": color, "size": 8},
                legendgroup=str(run),
                showlegend=column == 1,
                hovertemplate="%{text}<br>" + title + " %{x:.3g}<extra>" + label(name) + "</extra>",
                row=1,
                col=column,
            )
        figure.update_xaxes(type=scale, rangemode="tozero", tickangle=0, row=1, col=column)
        figure.update_xaxes(**(_decades(pair) if scale == "log" else {"nticks": 5}), row=1, col=column)
    every = max(1, len(rows) // 30)
    figure.update_yaxes(
        tickvals=rows[::every], ticktext=layers[::every], range=[len(rows) - 0.5, -0.5], automargin=True
    )
    height = max(260, min(1000, 110 + 22 * len(rows)))
    figure.update_layout(height=height, margin={"l": 110, "r": 16, "t": 50, "b": 50})
    stack(figure, 1, len(_PANELS), height)
    return figure


def _decades(values: np.ndarray) -> dict[str, Any]:
    """Ticks of a log axis: at 1, 2 and 5 over a small range, at whole powers over a large one."""
    there = values[np.isfinite(values) & (values > 0)]
    decades = float(np.log10(there.max() / there.min())) if len(there) else 0.0
    return {"dtick": "D2" if decades < 1.5 else max(1, round(decades / 4)), "exponentformat": "power"}
