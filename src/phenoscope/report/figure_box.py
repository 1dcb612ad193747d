"""A figure on a page: heading, a sentence on what to look for, and the figure or why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from .narrow import stack_narrow
from .theme import data_script, text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 450  # of a figure that does not say


def section(title: str, lead: str, content: str) -> str:
    """A part of a page.

    Args:
        title, lead: plain text.
        content: HTML.
    """
    return f"<section>\n<h2>{text(title)}</h2>\n<p class='lead'>{text(lead)}</p>\n{content}\n</section>\n"


def figure_box(identifier: str, title: str, draw: Callable[[], Figure]) -> str:
    """A figure; where it cannot be drawn, the sentence that says why.

    Args:
        identifier: unique on the page; letters, digits and hyphens.
        title: what a screen reader calls the figure.
        draw: makes the figure; its InputError is the sentence.
    """
    try:
        figure = draw()
    except InputError as error:
        return note(str(error))
    figure.layout.template = None  # the page has its own, light and dark
    return _box(identifier, title, int(figure.layout.height or HEIGHT), str(figure.to_json()))


def stored_figure_box(identifier: str, title: str, read: Callable[[], dict[str, Any]]) -> str:
    """A figure that lies on disk; where it cannot be shown, the sentence that says why.

    Args:
        identifier, title: as for `figure_box`.
        read: gives its `data` and `layout`, already harmless; its InputError is the sentence.
    """
    try:
        figure = read()
    except InputError as error:
        return note(str(error))
    given = figure["layout"].get("height")
    height = int(given) if isinstance(given, (int, float)) and 0 < given < 20_000 else HEIGHT
    figure["layout"]["height"] = height
    stack_narrow(figure["layout"], height)
    return _box(identifier, title, height, json.dumps(figure))


def _box(identifier: str, title: str, height: int, content: str) -> str:
    return (
        f"<figure class='plot' data-figure='{identifier}' aria-label='{text(title)}'>\n"
        f"<div class='controls'></div>\n<div class='legend'></div>\n"
        f"<div class='drawing' style='min-height:{height}px'></div>\n</figure>\n" + data_script(identifier, content)
    )


def note(message: str) -> str:
    """A sentence in place of what is missing; what stands between backquotes is a command."""
    parts = [text(part) for part in message.split("`")]
    marked = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f"<p class='note'>{marked[:1].upper() + marked[1:]}{'' if message.endswith(('.', '`')) else '.'}</p>\n"
