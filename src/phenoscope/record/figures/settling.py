"""When each layer settled, over a map of its changed share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..run import Run
from ..settling import settling as settled_layers
from .bins import bin_means, edges
from .names import label
from .palette import SECOND, spread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LAYERS, _POINTS = 80, 300


def settling(run: Run, settled: xr.Dataset | None = None) -> Figure:
    """The changed share of each layer (down, the lowest on top) against the step, and a mark where it has settled.

    The line marks the step from which a layer and all above it in the figure have settled: what lies to its right
    could be frozen in order. Long runs are shown as means over bins of records, and of many layers 80 spread over
    the depth.

    Args:
        run: a recorded run.
        settled: as `record.settling` gives it; by default with its defaults.

    Raises:
        InputError: the run has too few records.
    """
    from plotly.graph_objects import Figure

    found = settled_layers(run) if settled is None else settled
    places = spread(range(len(run.layers)), _LAYERS)
    names = [label(name) for name in np.array(list(run.layers))[places]]
    rows = list(range(len(names)))
    steps = run.means["step"].to_numpy().astype(float)
    starts = edges(len(steps), _POINTS)
    changed = bin_means(run.means["changed"].to_numpy()[:, places], starts).T
    figure = Figure()
    figure.add_heatmap(
        x=bin_means(steps, starts).round(1),
        y=rows,
        z=changed.astype(np.float32),
        zmin=0,
        zmax=float(max(np.nanmax(changed, initial=0), found.attrs["threshold"])),
        colorscale="Viridis",
        customdata=np.repeat(np.array(names, object)[:, None], len(starts), 1),
        colorbar={"title": {"text": "changed share", "font": {"size": 11}}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{customdata}<br>step %{x}: %{z:.3g}<extra></extra>",
        showlegend=False,
    )
    at = found.isel(layer=places)
    marks = [("has settled", "settled", "markers"), ("with all before it", "below", "lines")]
    for name, key, mode in marks:
        figure.add_scatter(
            x=at[key].to_numpy(),
            y=rows,
            name=name,
            mode=mode,
            text=names,
            line={"color": SECOND, "width": 2, "dash": "dot"},
            marker={"color": SECOND, "size": 9, "line": {"color": "white", "width": 1.2}},
            hovertemplate="%{text}<br>step %{x}<extra>" + name + "</extra>",
        )
    every = max(1, len(rows) // 24)
    figure.update_layout(
        xaxis={"title": {"text": "step", "font": {"size": 12}}, "range": [0, float(found.attrs["end"])]},
        yaxis={
            "tickvals": rows[::every],
            "ticktext": names[::every],
            "range": [len(rows) - 0.5, -0.5],
            "automargin": True,
        },
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        height=max(220, min(900, 110 + 22 * len(rows))),
        margin={"l": 110, "r": 16, "t": 50, "b": 50},
    )
    return figure
