"""Plots that stand side by side in a study's figure: below one another where there is little width.

What changes stands in `layout.meta` as `narrow` and `wide`, which undo each other (see `record.figures.stack`).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_CELL = 300  # pixels of a plot with its title and its axis
_TITLE, _AXIS = 34, 58  # of these, above and below
_AXIS_NAME = re.compile(r"xaxis(\d*)")

Layout = dict[str, Any]


class _Cell(NamedTuple):
    """A plot: the names of its axes in the layout, and where it stands, in shares of the figure."""

    x: str
    y: str
    across: tuple[float, float]
    up: tuple[float, float]


def stack_narrow(layout: Layout, height: float) -> None:
    """Add to a layout what it becomes where there is little width; only if it has columns and does not say itself.

    Args:
        layout: plotly's, as JSON has it.
        height: of the figure where there is width, in pixels.
    """
    meta = layout.get("meta")
    cells = sorted(_cells(layout), key=lambda cell: (-cell.up[1], cell.across[0]))
    columns = {cell.across for cell in cells}
    if (isinstance(meta, dict) and "narrow" in meta) or len(columns) < 2:
        return
    total = _CELL * len(cells)
    narrow: Layout = {"height": total + 110}  # of margins
    wide: Layout = {"height": height}
    for place, cell in enumerate(cells):
        top = 1 - (place * _CELL + _TITLE) / total
        bottom = 1 - ((place + 1) * _CELL - _AXIS) / total
        _move(narrow, wide, cell.x, [0, 1], list(cell.across))
        _move(narrow, wide, cell.y, [bottom, top], list(cell.up))
        _tell(layout, narrow, wide, cell.y, [each.y for each in cells if each.up == cell.up])
        _tell(layout, narrow, wide, cell.x, [each.x for each in reversed(cells) if each.across == cell.across])
        for index in _titles(layout, cell):
            for axis, new in (("x", 0.5), ("y", top)):
                narrow[f"annotations[{index}].{axis}"] = new
                wide[f"annotations[{index}].{axis}"] = layout["annotations"][index][axis]
    layout["meta"] = {**(meta if isinstance(meta, dict) else {}), "narrow": narrow, "wide": wide}


def _cells(layout: Layout) -> list[_Cell]:
    cells = []
    for name, axis in layout.items():
        if not (match := _AXIS_NAME.fullmatch(name)) or not isinstance(axis, dict) or axis.get("overlaying"):
            continue
        anchor = axis.get("anchor", f"y{match[1]}")
        y = f"yaxis{anchor[1:]}" if isinstance(anchor, str) and re.fullmatch(r"y\d*", anchor) else ""
        across, up = _span(axis), _span(layout.get(y, {}))
        if y and across and up:
            cells.append(_Cell(name, y, across, up))
    return cells


def _span(axis: Any) -> tuple[float, float] | None:
    span = axis.get("domain", [0, 1]) if isinstance(axis, dict) else None
    if isinstance(span, list) and len(span) == 2 and all(isinstance(end, (int, float)) for end in span):
        return round(span[0], 4), round(span[1], 4)
    return None


def _move(narrow: Layout, wide: Layout, axis: str, new: list[float], old: list[float]) -> None:
    narrow[f"{axis}.domain"], wide[f"{axis}.domain"] = new, old


def _tell(layout: Layout, narrow: Layout, wide: Layout, axis: str, beside: list[str]) -> None:
    """Give an axis the labels and the title that it left to another one of its row or column."""
    own = layout.get(axis, {})
    if own.get("showticklabels") is False and own.get("matches"):
        narrow[f"{axis}.showticklabels"], wide[f"{axis}.showticklabels"] = True, False
    if not _title(own):
        title = next((said for each in beside if (said := _title(layout.get(each, {})))), "")
        if title:
            narrow[f"{axis}.title.text"], wide[f"{axis}.title.text"] = title, ""


def _title(axis: Layout) -> str:
    title = axis.get("title")
    said = title.get("text") if isinstance(title, dict) else title
    return said if isinstance(said, str) else ""


def _titles(layout: Layout, cell: _Cell) -> list[int]:
    """The annotations that stand above the middle of a plot."""
    notes = layout.get("annotations")
    return [
        index
        for index, note in enumerate(notes if isinstance(notes, list) else [])
        if isinstance(note, dict)
        and note.get("xref") == note.get("yref") == "paper"
        and note.get("showarrow") is False
        and all(isinstance(note.get(axis), (int, float)) for axis in "xy")
        and abs(note["x"] - sum(cell.across) / 2) < 1e-3
        and abs(note["y"] - cell.up[1]) < 1e-3
    ]
