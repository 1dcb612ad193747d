"""Accuracy by the share of weights that is kept, one line a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ...core.errors import InputError
from ...stats import bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Each keeps a contrast of at least 3 to white and to near-black; the eighth method begins again, dashed.
_COLORS = (
    "rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(46, 150, 88)", "rgb(152, 104, 200)", "rgb(128, 136, 146)",
    "rgb(174, 134, 16)", "rgb(212, 70, 120)",
)  # fmt: skip
_APART = 1.015  # factor between the places of two methods at one density, so that whiskers do not hide each other


def accuracy_by_density(found: xr.Dataset) -> Figure:
    """What `prune.compare` found: the mean accuracy of every method at every density, and of the whole network.

    Whiskers are 95 % intervals over repetitions (`stats.bootstrap`), cut to [0, 1] where accuracies are shares; a
    single repetition has none. A hollow mark says that in some repetition a layer lost all of its weights. Methods
    stand a little beside each other at each density.

    Args:
        found: `accuracy` with dimensions `arm`, `density`, `repeat`; `dense_accuracy` and `collapsed`, where they
            are there, are shown, too. Repetitions that are NaN are left out.

    Raises:
        InputError: a result of something else.
    """
    from plotly.graph_objects import Figure

    if "accuracy" not in found or set(found["accuracy"].dims) != {"arm", "density", "repeat"}:
        raise InputError("this is no result of prune.compare: it has no accuracy by arm, density and repeat")
    found = found.sortby("density")
    densities = found["density"].to_numpy()
    figure = Figure()
    if "dense_accuracy" in found and bool(found["dense_accuracy"].notnull().any()):
        mean, low, high = _interval(found["dense_accuracy"].to_numpy())
        figure.add_hline(
            y=mean, line={"dash": "dot", "width": 1, "color": "rgb(128, 136, 146)"}, annotation_text="all weights",
            annotation_position="top left",
        )  # fmt: skip
        if low < high:
            figure.add_hrect(y0=low, y1=high, line_width=0, fillcolor="rgba(128, 136, 146, 0.15)")
    methods = found["arm"].to_numpy()
    for number, method in enumerate(methods):
        one = found.sel(arm=method)
        values = one["accuracy"].transpose("density", "repeat").to_numpy()
        mean, low, high = np.array([_interval(each) for each in values]).T
        empty = (one["collapsed"].max("repeat") > 0).to_numpy() if "collapsed" in one else np.zeros(len(mean), bool)
        color = _COLORS[number % len(_COLORS)]
        figure.add_scatter(
            x=densities * _APART ** (number - (len(methods) - 1) / 2), y=mean, name=str(method), mode="lines+markers",
            line={"color": color, "dash": "solid" if number < len(_COLORS) else "dash"},
            marker={"symbol": np.where(empty, "circle-open", "circle").tolist(), "size": 8},
            error_y={"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 1.2, "width": 3},
            customdata=np.stack([densities, low, high, (~np.isnan(values)).sum(1)], 1),
            hovertemplate="%{y:.4f} (%{customdata[1]:.4f} to %{customdata[2]:.4f}; %{customdata[3]} repetitions)<br>"
            "%{customdata[0]:.3g} of the weights<extra>" + str(method) + "</extra>",
        )  # fmt: skip
    ticks = {"tickvals": densities, "ticktext": [f"{density:.3g}" for density in densities]}
    figure.update_xaxes(type="log", title_text="share of weights kept", **ticks)
    figure.update_yaxes(title_text="accuracy")
    return figure


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean and the ends of its interval; both the mean where nothing is known of the spread."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    mean, low, high = bootstrap(values, generator=0)
    if not np.isfinite(low):
        return mean, mean, mean
    if values.min() >= 0 and values.max() <= 1:  # shares: Student's interval of a few would go beyond
        low, high = max(low, 0.0), min(high, 1.0)
    return mean, low, high
