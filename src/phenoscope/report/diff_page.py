"""The page that compares two runs of one architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..record import differences, figures, settling
from ..record.figures.names import named
from ..record.run import Run, open_run
from .facts import facts
from .figure_box import figure_box, section
from .numbers import number
from .pages_folder import write_pages
from .tables import table
from .theme import page, scripts, text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def run_diff(
    first: Run | Path | str,
    second: Run | Path | str,
    directory: Path | str,
    *,
    threshold: float = 0.05,
    window: int = 5,
) -> Path:
    """Write a page that compares two runs of one architecture, layer by layer.

    Args:
        first, second: runs, or the folders that hold them.
        directory: where the page goes; made if need be.
        threshold, window: when a layer counts as settled, as for `record.settling`.

    Returns:
        The path of `index.html`, which opens from disk and loads nothing over a network.

    Raises:
        InputError: runs that cannot be compared, a folder without one, or a directory that cannot be written.
    """
    one, other = (run if isinstance(run, Run) else open_run(run) for run in (first, second))
    return write_diff((one, other), differences(one, other, threshold=threshold, window=window), Path(directory))


def write_diff(runs: Sequence[Run], data: xr.Dataset, directory: Path) -> Path:
    """Write the page of a comparison that is already made; the path of `index.html`."""
    write_pages(directory, scripts() | {"index.html": diff_page(runs, data)})
    return directory / "index.html"


def diff_page(runs: Sequence[Run], data: xr.Dataset) -> str:
    """Two runs: their facts, their measures, where they differ, when their layers settled.

    Args:
        runs: the two runs.
        data: as `record.differences` gives it.
    """
    names = [name for name, _ in named(runs)]
    said = "".join(f"<p>{text(remark)}</p>\n" for remark in data.attrs["remarks"])
    layers = [str(name) for name in data["layer"].values]
    body = [
        f"<header>\n<h1>{text(names[0])} and {text(names[1])}</h1>\n"
        "<p class='lead'>Two runs of one architecture: what moved where, and when each layer settled.</p>\n"
        f"{said}</header>\n<main>\n",
        section(
            "Layer by layer",
            "Look for long lines between the dots: layers in which the two trainings went different ways. A layer "
            "without a dot on the right did not settle.",
            figure_box("figure-differences", "Layer by layer", lambda: figures.differences(data, names)),
        ),
        section(
            "The measures against the step",
            "Compare the order of the lines, and when they fall, between the two columns.",
            figure_box("figure-measures", "The measures against the step", lambda: figures.measures(runs)),
        ),
    ]
    for index, (name, run) in enumerate(zip(names, runs, strict=True)):
        title = f"When the layers of {name} settled"
        body.append(section(title, _LEAD.format(**data.attrs), figure_box(f"settling-{index}", title, _map(run, data))))
    body.append(
        section(
            "All numbers",
            "Likeness: whether the same filters moved most in both runs (rank correlation, 1 at most). Apart: how far "
            "the final weights lie from each other, in units of their norm.",
            _table(data, names, layers),
        )
    )
    known = [facts(run) for run in runs]
    titles = list(dict.fromkeys(fact for each in known for fact in each))
    rows = [[title, *(each.get(title, "–") for each in known)] for title in titles]
    body.append(section("The runs", "What was trained and recorded.", table(["", *names], rows)))
    return page(f"{names[0]} and {names[1]} – filter evolution", "".join(body) + "</main>\n")


_LEAD = (
    "A dot stands at the step after which the layer's changed share stays under {threshold:g} (running median of "
    "{window} records); the line, where that holds for all layers before it, too."
)


def _map(run: Run, data: xr.Dataset) -> Callable[[], Figure]:
    return lambda: figures.settling(run, settling(run, threshold=data.attrs["threshold"], window=data.attrs["window"]))


def _table(data: xr.Dataset, names: Sequence[str], layers: list[str]) -> str:
    head = ["layer"]
    for title in ("changed", "idle", "per weight", "settled"):
        head += [f"{title}, {name}" for name in names]
    rows = []
    for index, layer in enumerate(layers):
        at = data.isel(layer=index)
        cells = [number(float(v), 3) for key in ("changed", "idle", "distance_per_weight") for v in at[key].values]
        cells += [_step(value) for value in at["settled"].values]
        rows.append([layer, *cells, number(float(at["likeness"]), 2), number(float(at["apart"]), 3)])
    return table([*head, "likeness", "apart"], rows)


def _step(value: np.floating | float) -> str:
    return "not" if math.isnan(value) else f"{value:.0f}"
