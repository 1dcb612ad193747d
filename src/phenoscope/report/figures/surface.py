"""The loss on a line or plane through weight space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from ...core.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LINE, _STATE = "rgb(46, 124, 196)", "rgb(214, 104, 44)"


def loss_surface(
    found: xr.Dataset,
    *,
    value: Literal["loss", "error"] = "loss",
    relief: bool = False,
    names: tuple[str, ...] | None = None,
) -> Figure:
    """What `landscape.surface` found: a curve along a line, or a map of a plane, with the states marked.

    Colors follow the logarithm of the loss, because it rises by orders of magnitude around a minimum.

    Args:
        found: as `landscape.surface` gives it.
        value: what to show.
        relief: whether to show a plane as a relief in three dimensions, which can be turned.
        names: of the states, in their order; "state 1" and so on if nothing is said.

    Raises:
        InputError: a result of something else, names of another number than the states, or a relief of a line.
    """
    from plotly.graph_objects import Figure

    if value not in found or "state_x" not in found:
        raise InputError(f"this is no result of landscape.surface: it has no {value} with states")
    states = found.sizes["state"]
    words = [f"state {number}" for number in range(1, states + 1)] if names is None else list(names)
    if len(words) != states:
        raise InputError(f"{len(words)} names for {states} states")
    plane = "y" in found.dims
    if relief and not plane:
        raise InputError("a relief needs a plane: this is a line")
    figure = Figure()
    heights = found[f"state_{value}"].to_numpy()
    marks = {
        "x": found["state_x"].to_numpy(),
        "text": words,
        "name": "states",
        "mode": "markers+text",
        "textposition": "top center",
    }
    dot = {"color": _STATE, "size": 9, "line": {"color": "white", "width": 1.5}}
    if not plane:
        figure.add_scatter(x=found["x"].to_numpy(), y=found[value].to_numpy(), name=value, line={"color": _LINE})
        figure.add_scatter(y=heights, marker=dot, **marks)
        figure.update_layout(xaxis_title="along the line", yaxis_title=value, showlegend=False)
        return figure
    x, y, z = (found[name].to_numpy() for name in ("x", "y", value))
    colors, bar = _colors(z, value)
    if relief:
        figure.add_surface(x=x, y=y, z=z, surfacecolor=colors, colorscale="Viridis", colorbar=bar, name=value)
        figure.add_scatter3d(
            y=found["state_y"].to_numpy(), z=heights, marker={"color": _STATE, "size": 5}, showlegend=False, **marks
        )
        figure.update_layout(scene={"xaxis_title": "", "yaxis_title": "", "zaxis_title": value})
        return figure
    figure.add_contour(
        x=x,
        y=y,
        z=colors,
        customdata=z,
        colorscale="Viridis",
        ncontours=24,
        colorbar=bar,
        name=value,
        line={"width": 0.5, "color": "rgba(255, 255, 255, 0.5)"},
        hovertemplate=f"({'%{x:.3g}'}, {'%{y:.3g}'})<br>{value} {'%{customdata:.4g}'}<extra></extra>",
    )
    figure.add_scatter(
        y=found["state_y"].to_numpy(), marker=dot, textfont={"color": "white"}, customdata=heights,
        hovertemplate="%{text}<br>" + value + " %{customdata:.4g}<extra></extra>", **marks,
    )  # fmt: skip
    figure.update_layout(showlegend=False, yaxis={"scaleanchor": "x"} if _comparable(found) else {})
    return figure


def _colors(z: np.ndarray, value: str) -> tuple[np.ndarray, dict[str, object]]:
    """What is colored, and its scale with the values themselves written beside it."""
    bar: dict[str, object] = {"title": {"text": value}, "thickness": 12, "outlinewidth": 0}
    finite = z[np.isfinite(z)]
    if value != "loss" or not len(finite) or finite.min() <= 0:
        return z, bar
    ticks = np.geomspace(finite.min(), finite.max(), 6)
    return np.log10(z), bar | {"tickvals": np.log10(ticks), "ticktext": [f"{tick:.2g}" for tick in ticks]}


def _comparable(found: xr.Dataset) -> bool:
    """Whether both axes are distances between states, so that right angles may look right."""
    return all(bool((found[f"state_{letter}"] != 0).any()) for letter in "xy")
