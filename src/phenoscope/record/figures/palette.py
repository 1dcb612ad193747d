"""Colours by depth, and a few layers spread over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

# From the lowest layer to the highest. Every one keeps a contrast of at least 3 to white and to near-black.
_DEPTH = np.array([(76, 120, 220), (22, 148, 172), (46, 150, 88), (174, 134, 16), (222, 106, 44), (212, 70, 120)])
ACCENT, SECOND, NEUTRAL = "rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(128, 136, 146)"


def by_depth(count: int) -> list[str]:
    """As many colours as there are layers, lowest first."""
    places = np.linspace(0, len(_DEPTH) - 1, max(count, 1))
    channels = [np.interp(places, np.arange(len(_DEPTH)), channel) for channel in _DEPTH.T]
    return [f"rgb({r:.0f}, {g:.0f}, {b:.0f})" for r, g, b in zip(*channels, strict=True)][:count]


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
