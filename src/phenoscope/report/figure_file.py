"""A study's figure as it lies on disk, made harmless: plotly reads markup in its texts and loads maps and images."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from .outcomes import read_object

# What is drawn from its own numbers alone; maps and tables of plotly load from a network or take markup of their own.
_KINDS = {
    *("scatter", "bar", "heatmap", "histogram", "histogram2d", "contour", "box", "violin", "pie", "image"),
    *("scatterpolar", "barpolar", "surface", "scatter3d", "mesh3d", "parcoords", "waterfall", "funnel"),
}
_MOST_TRACES = 2_000
_TAG = re.compile(r"<(?!/?(?:b|i|em|sub|sup|br|extra) ?/?>)", re.IGNORECASE)
_PARTS = re.compile(r"[.\[\]]")
_FOREIGN = {"__proto__", "constructor", "prototype"}
_LOADS = {"geo", "map", "mapbox", "template"}
_PICTURES = {"src", "source"}  # kept where they hold the picture itself
_METHODS = ("relayout", "restyle", "update")


def read_figure(file: Path) -> dict[str, Any]:
    """`data` and `layout` of a plotly figure, without whatever could load or run anything.

    Texts keep bold, italics, sub- and superscripts and line breaks; every other tag stands there as text.

    Raises:
        InputError: it cannot be read, is no figure, or is of a kind that is not shown.
    """
    content = read_object(file)
    data, layout = content.get("data"), content.get("layout", {})
    if not isinstance(data, list) or not isinstance(layout, dict) or not all(isinstance(trace, dict) for trace in data):
        raise InputError(f"{file} is damaged: it holds no figure of plotly")
    if len(data) > _MOST_TRACES:
        raise InputError(f"{file} has {len(data)} traces; a page shows {_MOST_TRACES} at most")
    for trace in data:
        kind = trace.get("type", "scatter")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise InputError(f"{file} has a trace of the kind {str(kind)[:40]!r}, which is not shown")
    try:
        cleaned: dict[str, Any] = _clean({"data": data, "layout": layout})
        json.dumps(cleaned, allow_nan=False)
    except (RecursionError, ValueError) as error:
        raise InputError(f"{file} is damaged: {error}") from error
    cleaned["layout"].pop("sliders", None)
    menus = cleaned["layout"].pop("updatemenus", None)
    cleaned["layout"]["updatemenus"] = [menu for menu in menus if _usable(menu)] if isinstance(menus, list) else []
    return cleaned


def _usable(menu: Any) -> bool:
    """Whether the page can draw this menu as its own."""
    buttons = menu.get("buttons") if isinstance(menu, dict) else None
    return isinstance(buttons, list) and all(
        isinstance(button, dict) and button.get("method") in _METHODS and isinstance(button.get("args"), list)
        for button in buttons
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _TAG.sub("&lt;", value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {_TAG.sub("&lt;", name): _clean(each) for name, each in value.items() if _kept(name, each)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _kept(name: str, value: Any) -> bool:
    parts = set(_PARTS.split(name))
    if parts & _PICTURES:
        return isinstance(value, str) and value.startswith("data:image/png;base64,")
    return not parts & (_FOREIGN | _LOADS)
