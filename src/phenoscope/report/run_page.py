"""The page of one run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..record import figures
from ..record.run import Run
from .facts import facts, notes
from .figure_box import figure_box, note, section
from .paper import observed, paper_table
from .results import read_ablation, read_slimming
from .tables import ablation_table, slimming_table
from .theme import Live, page, text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ABLATE = "`phenoscope ablate RUN --model pkg:build --data pkg:load`"


def run_page(name: str, run: Run, image: Tensor | Path | str | None = None, *, live: Live | None = None) -> str:
    """All that is known of a run: its facts, its figures, the ablation and the slimming.

    Args:
        name: as the page calls the run.
        image: for the feature maps; by default the one that lies with the run.
        live: for a page that follows what changes.
    """
    rows = "".join(f"<div><dt>{text(fact)}</dt><dd>{text(value)}</dd></div>\n" for fact, value in facts(run).items())
    said = "".join(f"<p>{text(each)}</p>\n" for each in notes(run))
    body = [
        "<header>\n<p class='back'><a href='index.html'>← All runs</a></p>\n"
        f"<h1>{text(name)}</h1>\n<dl class='facts'>\n{rows}</dl>\n{said}</header>\n<main>\n"
    ]
    layers = observed(run)
    for title, lead, draw in _figures(run, image, layers):
        body.append(section(title, lead, figure_box(f"figure-{len(body)}", title, draw)))
    body.append(_ablation(run))
    body.append(_slimming(run))
    return page(f"{name} – filter evolution", "".join(body) + "</main>\n", live=live)


def _figures(
    run: Run, image: Tensor | Path | str | None, layers: list[str] | None
) -> list[tuple[str, str, Callable[[], Figure]]]:
    return [
        (
            "First-layer filters over time",
            "Look along a row: one filter, from the first snapshot to the last. The top rows moved most over the "
            "training, the bottom rows least; a row that looks the same throughout changed little for its size.",
            lambda: figures.strips(run),
        ),
        (
            "The measures against the step",
            "Look at the order of the lines: which layers keep changing, which settle early, and whether the distance "
            "per weight tells the same story as the raw distance, which grows with the size of a filter.",
            lambda: figures.measures(run, layers),
        ),
        (
            "What the first layer sees",
            "Compare the same place in the two panels of maps: where they differ, training changed what the filter "
            "responds to; where they are alike, it stayed close to its start.",
            lambda: figures.feature_maps(run, _image(run, image)),
        ),
        (
            "Distance of every filter, sorted",
            "Look at the right end of a line: where it falls steeply, a few filters of the layer moved far less than "
            "the others.",
            lambda: figures.sorted_distance(run, layers),
        ),
        (
            "Every filter at every step",
            "Look for rows that stay dark from left to right: filters that hardly changed. Drag over a part to "
            "enlarge it, double-click to go back.",
            lambda: figures.heatmap(run),
        ),
    ]


def _image(run: Run, image: Tensor | Path | str | None) -> Tensor | Path | str:
    if image is not None:
        return image
    file = run.path / "image.npy"
    if not file.is_file():
        raise InputError("there is no image to show maps of; `phenoscope report RUN --image FILE` takes one")
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _ablation(run: Run) -> str:
    content, remarks = "", []
    for file, what in [("redundant", "Redundant filters"), ("least_evolved", "Least-evolved filters")]:
        path = run.path / "ablation" / f"{file}.json"
        if not path.exists():
            continue
        content += f"<h3>{what}</h3>\n"
        try:
            data = read_ablation(path)
        except InputError as error:
            content += note(str(error))
            continue
        content += figure_box(f"ablation-{file.replace('_', '-')}", what, partial(figures.ablation, data))
        content += ablation_table(data)
        remarks.append(str(data.attrs.get("note", "")))
    content += "".join(f"<p class='aside'>{text(remark)}</p>\n" for remark in dict.fromkeys(remarks) if remark)
    return section(
        "What zeroing filters costs",
        "Compare each dot with the grey interval of its row: a dot at its left means that these filters matter less "
        "than random ones, a dot at zero that they can go at no cost.",
        (content or note(f"there is no ablation of this run; {_ABLATE} makes one")) + paper_table(run),
    )


def _slimming(run: Run) -> str:
    path = run.path / "ablation" / "slimming.json"
    try:
        content = (
            slimming_table(read_slimming(path)) if path.exists() else note(f"nothing was cut out yet; {_ABLATE} does")
        )
    except InputError as error:
        content = note(str(error))
    return section(
        "What cutting them out gives",
        "Look at the accuracy first, then at what became smaller: these filters were removed for good.",
        content,
    )
