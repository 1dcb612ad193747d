"""First-layer filters over time, as strips of small pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..layers import Layer
from ..run import Run
from .first_layer import first_layer, most_to_least, weight_at
from .names import label
from .palette import spread
from .pixels import mosaic, png, scaled
from .stack import keep_aspect

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLUMNS = 24


def strips(run: Run, filters: int = 16) -> Figure:
    """First-layer filters over time: a row a filter, a column a snapshot, at most 24 of them.

    Rows go from the filter with the largest time-mean distance to the one with the smallest. Each filter is scaled by
    its own range over time, so that a row shows change and not size. Three input channels are red, green and blue; of
    any other number the mean is shown in grey.

    Args:
        run: a recorded run with snapshots.
        filters: how many filters at most.

    Raises:
        InputError: the run kept no weights, or its first layer is not a convolution.
    """
    from plotly.graph_objects import Figure

    layer = first_layer(run)
    if layer.settings is None:
        raise InputError(f"strips show filters of a convolution; the first layer, {layer.name!r}, is {layer.kind}")
    steps = spread(run.snapshots, _COLUMNS)
    rows = most_to_least(run, layer, filters)
    pictures = np.stack([_pictures(run, layer, step)[rows] for step in steps], axis=1)
    image = mosaic(scaled(pictures, axes=(1, 2, 3, 4)))
    height, width = image.shape[:2]
    down, across = (height + 2) / len(rows), (width + 2) / len(steps)
    figure = Figure()
    figure.add_image(source=png(image), zsmooth=False, hoverinfo="skip")
    plain = {"showgrid": False, "zeroline": False, "ticks": "", "constrain": "domain"}
    figure.update_layout(
        xaxis={
            "title": {"text": "step", "font": {"size": 12}},
            "tickvals": [across * (i + 0.5) - 1.5 for i in range(len(steps))],
            "ticktext": [str(step) for step in steps],
            **plain,
        },
        yaxis={
            "title": {"text": f"filter of {label(layer.name, 24)}", "font": {"size": 12}},
            "tickvals": [down * (i + 0.5) - 1.5 for i in range(len(rows))],
            "ticktext": [str(row) for row in rows],
            **plain,
        },
        margin={"l": 60, "r": 12, "t": 12, "b": 60},
    )
    keep_aspect(figure, height / width, height / width)
    return figure


def _pictures(run: Run, layer: Layer, step: int) -> np.ndarray:
    """The filters as pictures (filters, height, width, 3)."""
    weight = weight_at(run, layer, step).numpy()
    while weight.ndim > 4:  # of a volume, the mean over its depth
        weight = weight.mean(2)
    if weight.ndim == 3:
        weight = weight[:, :, None]
    if weight.shape[1] != 3:
        weight = weight.mean(1, keepdims=True).repeat(3, 1)
    return weight.transpose(0, 2, 3, 1)
