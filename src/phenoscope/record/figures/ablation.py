"""What zeroing filters costs, beside random filters and those of smallest norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ...core.errors import InputError
from .names import label
from .palette import ACCENT, NEUTRAL, SECOND

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def ablation(table: xr.Dataset) -> Figure:
    """Drop of accuracy when filters of a layer are zeroed, one row a layer; layers without such filters are left out.

    Three marks a layer, for equally many filters: the chosen ones, random ones (mean over draws, with its 95 %
    interval), and those of smallest L1 norm. A drop is accuracy before minus after, in percentage points; below zero
    the accuracy rose.

    Args:
        table: as `record.ablate` returns it.

    Raises:
        InputError: the table lacks a part, or no filter was zeroed in any layer.
    """
    from plotly.graph_objects import Figure

    missing = {"count", "drop", "random_mean", "random_low", "random_high", "norm_drop"} - set(table.data_vars)
    if missing or "layer" not in table.dims:
        raise InputError(f"this is no ablation table: {sorted(missing)[0] if missing else 'layer'!r} is missing")
    rows = table.isel(layer=np.flatnonzero(table["count"].to_numpy() > 0))
    if not rows.sizes["layer"]:
        raise InputError("no filter was zeroed in any layer, so there is no drop to show")
    names = ("drop", "random_mean", "random_low", "random_high", "norm_drop")
    percent = {name: 100 * rows[name].to_numpy().astype(float) for name in names}
    place = np.arange(rows.sizes["layer"], dtype=float)
    mean = percent["random_mean"]
    selection = label(table.attrs.get("selection", "chosen filters"), 80)
    figure = Figure()
    figure.add_scatter(
        x=mean,
        y=place,
        name="random: mean and its 95 % interval",
        mode="markers",
        marker={"symbol": "line-ns", "size": 11, "color": NEUTRAL, "line": {"width": 2, "color": NEUTRAL}},
        error_x={
            "array": percent["random_high"] - mean,
            "arrayminus": mean - percent["random_low"],
            "color": NEUTRAL,
            "thickness": 2,
            "width": 4,
        },
        hovertemplate="random: %{x:.2f} points<extra></extra>",
    )
    for name, values, symbol, color, shift in [
        (selection, percent["drop"], "circle", ACCENT, -0.24),
        ("smallest L1 norm", percent["norm_drop"], "square-open", SECOND, 0.24),
    ]:
        figure.add_scatter(
            x=values,
            y=place + shift,
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": color, "line": {"width": 2 if "open" in symbol else 0}},
            hovertemplate="%{fullData.name}: %{x:.2f} points<extra></extra>",
        )
    layers = [label(name, 22) for name in rows["layer"].to_numpy()]
    figure.update_layout(
        xaxis={"title": {"text": "drop of accuracy, percentage points", "font": {"size": 12}}, "zeroline": True},
        yaxis={
            "tickvals": place,
            "ticktext": layers,
            "range": [len(layers) - 0.4, -0.6],
            "zeroline": False,
            "automargin": True,
        },
        showlegend=True,
        height=max(220, 90 + 34 * len(layers)),
        margin={"l": 60, "r": 16, "t": 12, "b": 50},
        hovermode="closest",
    )
    return figure
