"""Learning curves that a kernel's eigenvalues predict, and the spectrum that they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ...core.errors import InputError
from ...stats import bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS = ("rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(46, 150, 88)", "rgb(152, 104, 200)", "rgb(128, 136, 146)")
_SPECTRUM, _TARGET = "rgb(128, 136, 146)", "rgb(212, 70, 120)"


def generalization_curve(found: xr.Dataset) -> Figure:
    """What `kernels.predict_generalization` found: errors by sample size, and where the target is in the spectrum.

    On the left a line for each ridge, and marks with 95 % intervals over repetitions (`stats.bootstrap`) where errors
    were measured. On the right, by mode, the eigenvalues as shares of their sum, and which share of the target lies in
    the first so many modes: those are learned first.

    Args:
        found: `test_mse` over `ridge` and `n`, `eigenvalue` and `energy` over `mode`; `measured_mse`, where it is
            there, over `repeat`, too.

    Raises:
        InputError: a result of something else.
    """
    from plotly.subplots import make_subplots

    if not {"test_mse", "eigenvalue", "energy"} <= set(found) or set(found["test_mse"].dims) != {"ridge", "n"}:
        raise InputError("this is no result of kernels.predict_generalization: it has no test_mse by ridge and n")
    found = found.sortby("n")
    figure = make_subplots(
        1, 2, subplot_titles=("error by number of samples", "spectrum and target"),
        specs=[[{}, {"secondary_y": True}]],
    )  # fmt: skip
    n = found["n"].to_numpy()
    for number, ridge in enumerate(found["ridge"].to_numpy()):
        name = "no ridge" if ridge == 0 else f"ridge {ridge:.3g}"
        color = _COLORS[number % len(_COLORS)]
        figure.add_scatter(
            x=n, y=found["test_mse"].isel(ridge=number).to_numpy(), name=f"{name}, predicted", mode="lines",
            line={"color": color}, legendgroup=name, row=1, col=1,
        )  # fmt: skip
        if "measured_mse" in found:
            values = found["measured_mse"].isel(ridge=number).transpose("n", "repeat").to_numpy()
            mean, low, high = np.array([_interval(each) for each in values]).T
            figure.add_scatter(
                x=n, y=mean, name=f"{name}, measured", mode="markers", marker={"color": color, "size": 8},
                error_y={"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 1.2, "width": 3},
                legendgroup=name, row=1, col=1,
            )  # fmt: skip
    positive = found["eigenvalue"].to_numpy() > 0
    modes = 1 + np.flatnonzero(positive)
    values = found["eigenvalue"].to_numpy()[positive]
    energy = found["energy"].to_numpy()
    figure.add_scatter(
        x=modes, y=values / values.sum(), name="eigenvalues", mode="lines", line={"color": _SPECTRUM}, row=1, col=2
    )
    figure.add_scatter(
        x=1 + np.arange(len(energy)), y=energy.cumsum() / energy.sum(), name="target", mode="lines",
        line={"color": _TARGET}, row=1, col=2, secondary_y=True,
    )  # fmt: skip
    figure.update_xaxes(type="log", title_text="samples", row=1, col=1)
    figure.update_yaxes(type="log", title_text="mean squared error", row=1, col=1)
    figure.update_xaxes(type="log", title_text="mode", row=1, col=2)
    figure.update_yaxes(type="log", title_text="share of the eigenvalues' sum", row=1, col=2)
    figure.update_yaxes(
        type="linear", range=[0, 1.02], title_text="share of the target so far", row=1, col=2, secondary_y=True
    )
    return figure


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean and the ends of its interval; both the mean where one repetition tells nothing of the spread."""
    mean, low, high = bootstrap(values, generator=0)
    return (mean, low, high) if np.isfinite(low) else (mean, mean, mean)
