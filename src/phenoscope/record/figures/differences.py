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
        figure.update_xaxes(**(_log_ticks(pair) if scale == "log" else {"nticks": 5}), row=1, col=column)
    every = max(1, len(rows) // 30)
    figure.update_yaxes(
        tickvals=rows[::every], ticktext=layers[::every], range=[len(rows) - 0.5, -0.5], automargin=True
    )
    height = max(260, min(1000, 110 + 22 * len(rows)))
    figure.update_layout(height=height, margin={"l": 110, "r": 16, "t": 50, "b": 50})
    stack(figure, 1, len(_PANELS), height)
    return figure


def _log_ticks(values: np.ndarray) -> dict[str, Any]:
    """Three to six ticks of a log axis, however wide it is: whole powers, or 1 and 3, or 1, 2 and 5, or equal steps."""
    there = values[np.isfinite(values) & (values > 0)]
    if not len(there) or there.max() / there.min() < 1 + 1e-6:
        return {}
    beside = float(there.max() / there.min()) ** 0.05  # of the outermost dots the axis shows a bit more
    low, high = float(there.min()) / beside, float(there.max()) * beside
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    apart = max(1, -(-(last - first) // 6))
    powers = [10.0**power for power in range(first, last + 1)]
    for ticks in (
        [10.0**power for power in range(first, last + 1) if power % apart == 0],
        [digit * power for power in powers for digit in (1, 3)],
        [digit * power for power in powers for digit in (1, 2, 5)],
    ):
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) >= 3:
            break
    else:
        step = _round((high - low) / 4)
        shown = _spread_out([step * i for i in range(int(np.ceil(low / step)), int(high / step) + 1)], high / low)
    plain = all(1e-3 <= tick < 1e4 for tick in shown)
    return {"tickvals": shown, "ticktext": [f"{tick:.4g}" if plain else _as_power(tick) for tick in shown]}


def _spread_out(ticks: list[float], width: float) -> list[float]:
    """Of ticks in order those that are at least a fifth of a log axis apart, whose ends have this ratio."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick / kept[-1] >= width**0.2:
            kept.append(tick)
    return kept


def _round(step: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten below."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(power * max(digit for digit in (1, 2, 5) if digit * power <= step * (1 + 1e-9)))


def _as_power(tick: float) -> str:
    """2 x 10 to a power."""
    digits, power = f"{tick:.2e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    return f"{'' if digits == '1' else digits + '×'}10<sup>{int(power)}</sup>"
