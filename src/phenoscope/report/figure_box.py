"""A figure on a page: heading, a sentence on what to look for, and the figure or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .theme import data_script, text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
    height = int(figure.layout.height or 450)
    return (
        f"<figure class='plot' data-figure='{identifier}' aria-label='{text(title)}'>\n"
        f"<div class='controls'></div>\n<div class='legend'></div>\n"
        f"<div class='drawing' style='min-height:{height}px'></div>\n</figure>\n"
        + data_script(identifier, str(figure.to_json()))
    )


def note(message: str) -> str:
    """A sentence in place of what is missing; what stands between backquotes is a command."""
    parts = [text(part) for part in message.split("`")]
    marked = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f"<p class='note'>{marked[:1].upper() + marked[1:]}{'' if message.endswith(('.', '`')) else '.'}</p>\n"
