"""The measures of every layer against the step, runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ..run import Run
from .bins import bin_means, edges
from .controls import scale_menu
from .names import check_layers, label, named
from .palette import by_depth, spread
from .stack import axis_number, stack

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# measure, title of its axis, its name on the menu, the scale it starts with
ROWS = [
    ("changed", "changed share S", "changed S", "linear"),
    ("idle", "idle share Z", "idle Z", "linear"),
    ("distance_per_weight", "distance per weight", "per weight", "log"),
    ("distance", "raw distance D", "raw D", "log"),
]
_POINTS = 400  # a line; more cannot be told apart on a screen
_SHOWN, _MOST = 6, 40


def measures(runs: Run | Sequence[Run], layers: Sequence[str] | None = None) -> Figure:
    """Changed share S, idle share Z, distance per weight and raw distance D of each layer against the step.

    One line a layer, one column a run. Clicking a layer in the legend shows or hides it everywhere; menus switch each
    axis between linear and log (zero has no place on a log axis). A gap in the recording breaks the lines. Long runs
    are shown as means over at most 400 bins of records.

    Args:
        runs: a run or several.
        layers: names of the layers shown at first; by default six spread over the depth. Others, up to 40 in all,
            wait in the legend.

    Raises:
        InputError: no run, a layer that no run has, or runs without any record.
    """
    from plotly.subplots import make_subplots

    several = named(runs)
    if layers is not None:
        check_layers(layers, [run for _, run in several])
    if not any(run.means.sizes["step"] for _, run in several):
        raise InputError(f"{several[0][1].path} has no records yet; let the training go on and open it again")
    columns = len(several)
    figure = make_subplots(
        rows=len(ROWS),
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=columns > 1,
        column_titles=[label(name) for name, _ in several],
        vertical_spacing=0.04,
        horizontal_spacing=0.04,
    )
    networks = [tuple(run.layers) for _, run in several]
    for column, (_, run) in enumerate(several):
        alike = [
            label(name) for (name, _), network in zip(several, networks, strict=True) if network == networks[column]
        ]
        title = ", ".join(alike) if len(set(networks)) > 1 else ""
        _add_lines(figure, run, column + 1, layers, leader=networks.index(networks[column]) + 1, title=title)
    _lay_out(figure, columns)
    stack(figure, len(ROWS), columns, height=760)
    return figure


def _add_lines(figure: Figure, run: Run, column: int, layers: Sequence[str] | None, *, leader: int, title: str) -> None:
    """The lines of a run. Columns of equal layers share the legend entries of the first of them, the leader."""
    names = list(run.layers)
    shown = spread(names, _SHOWN) if layers is None else [name for name in names if name in layers]
    waiting = [name for name in names if name not in shown]
    offered = {*shown, *spread(waiting, max(0, _MOST - len(shown)))}
    colors = by_depth(len(names))
    steps, values = _thinned(run)
    for row, (measure, _, _, _) in enumerate(ROWS):
        for index, name in enumerate(names):
            if name not in offered:
                continue
            figure.add_scatter(
                x=steps,
                y=values[measure][:, index],
                name=label(name),
                mode="lines" if len(steps) > 1 else "markers",
                line={"color": colors[index], "width": 1.6},
                visible=True if name in shown else "legendonly",
                legendgroup=f"{leader}-{index}",
                legendgrouptitle={"text": title if index == 0 else ""},
                showlegend=column == leader and row == 0,
                hovertemplate="%{fullData.name}<br>step %{x}: %{y:.3g}<extra></extra>",
                row=row + 1,
                col=column,
            )


def _thinned(run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps and layer means, as means over bins of records; a bin that holds a gap is one."""
    means = run.means
    steps = means["step"].to_numpy()
    if not len(steps):
        return steps, {measure: np.empty((0, len(run.layers)), np.float32) for measure, *_ in ROWS}
    starts = edges(len(steps), _POINTS)
    gap = np.maximum.reduceat(means["gap"].to_numpy(), starts)
    last = np.append(starts[1:], len(steps)) - 1
    values = {}
    for measure, *_ in ROWS:
        mean = bin_means(means[measure].to_numpy(), starts)
        values[measure] = np.where(gap[:, None], np.nan, mean).astype(np.float32)
    return (steps[starts] + steps[last]) / 2, values


def _lay_out(figure: Figure, columns: int) -> None:
    menus: list[dict[str, Any]] = []
    for row, (_, title, short, scale) in enumerate(ROWS):
        axes = [f"yaxis{axis_number(row, column, columns)}" for column in range(columns)]
        for axis in axes:
            figure.layout[axis].update(type=scale, tickformat="" if scale == "linear" else ".2~e", nticks=4)
            figure.layout[axis].title.font.size = 12
        figure.layout[axes[0]].title.text = title
        menus.append(scale_menu(short, axes, place=0.2 * (row + 1), start=scale))
    numbers = [axis_number(row, column, columns) for row in range(len(ROWS)) for column in range(columns)]
    menus.insert(0, scale_menu("step", [f"xaxis{number}" for number in numbers], place=0))
    for column in range(columns):
        figure.update_xaxes(title={"text": "step", "font": {"size": 12}}, row=len(ROWS), col=column + 1)
    margin = {"l": 70, "r": 16, "t": 90, "b": 50}
    figure.update_layout(updatemenus=menus, height=860, margin=margin, hovermode="closest", legend={"tracegroupgap": 0})
