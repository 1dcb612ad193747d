"""Menus of a figure. The report draws them as its own controls, so each says its name before every choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """One choice of a menu: its label, one of plotly's methods (restyle, relayout, update), and its arguments."""

    label: str
    method: str
    args: list[Any]


def menu(name: str, choices: Sequence[Choice], place: float, active: int = 0) -> dict[str, Any]:
    """A dropdown above the figure.

    Args:
        name: what is chosen; it must be escaped, as the labels must be.
        place: where its left edge stands, as a share of the width.
        active: which choice the figure starts with.
    """
    buttons = [{"label": f"{name}: {each.label}", "method": each.method, "args": each.args} for each in choices]
    position = {"x": place, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 34}, "font": {"size": 10}}
    return {"name": name, "type": "dropdown", "buttons": buttons, "active": active, "showactive": True, **position}


def scale_menu(name: str, axes: Sequence[str], place: float, start: str = "linear") -> dict[str, Any]:
    """A dropdown that switches axes between linear and log; the axes must have been given the type `start`."""
    kinds = ("linear", "log")
    free = {f"{axis}.autorange": True for axis in axes}
    free = {f"{axis}.autorange": True for axis in axes}
    choices = [Choice(kind, "relayout", [{f"{axis}.type": kind for axis in axes} | free]) for kind in kinds]
    return menu(name, choices, place, kinds.index(start))
