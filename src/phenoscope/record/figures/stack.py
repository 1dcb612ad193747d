"""What a page changes in a figure's layout where there is little width.

`layout.meta` holds `narrow` and `wide`, two sets of changes that undo each other, and `aspect`, height over width of
the part inside the margins, where the figure must keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TITLE = 44  # pixels for a column's title; 52 are for its x axis


def stack(figure: Figure, rows: int, columns: int, height: int) -> None:
    """Let the columns of a grid stand below one another where there is little width.

    Args:
        figure: made by `make_subplots` with `column_titles`, its height set.
        height: of one column, in pixels.
    """
    if columns == 1:
        return
    total = columns * height
    narrow: dict[str, Any] = {"height": total}
    for column in range(columns):
        top = 1 - column / columns
        first = top - _TITLE / total
        row_height = (first - (1 - (column + 1) / columns) - 52 / total) / rows
        narrow[f"annotations[{column}].x"] = 0.5
        narrow[f"annotations[{column}].y"] = first
        for row in range(rows):
            number = axis_number(row, column, columns)
            bottom = first - (row + 1) * row_height
            narrow[f"xaxis{number}.domain"] = [0, 1]
            narrow[f"yaxis{number}.domain"] = [bottom, bottom + row_height * (0.88 if rows > 1 else 1)]
            if figure.layout[f"yaxis{number}"].visible is not False:
                narrow[f"yaxis{number}.showticklabels"] = True
                leader = axis_number(row, 0, columns)
                narrow[f"yaxis{number}.title.text"] = figure.layout[f"yaxis{leader}.title.text"]
    wide = {key: figure.layout[key] for key in narrow}
    figure.update_layout(meta={**(figure.layout.meta or {}), "narrow": narrow, "wide": wide})


def keep_aspect(figure: Figure, wide: float, narrow: float) -> None:
    """Fix height over width inside the margins; outside a page, for a width of 800 pixels."""
    margin = figure.layout.margin
    height = round(wide * (800 - margin.l - margin.r) + margin.t + margin.b)
    figure.update_layout(height=height, meta={**(figure.layout.meta or {}), "aspect": {"wide": wide, "narrow": narrow}})


def axis_number(row: int, column: int, columns: int) -> str:
    """What follows `xaxis` and `yaxis` in the name of a grid's axis."""
    number = row * columns + column + 1
    return "" if number == 1 else str(number)
