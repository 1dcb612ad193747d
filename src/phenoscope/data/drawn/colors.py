"""Colors by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.errors import InputError

COLORS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.7, 0.2),
    "blue": (0.15, 0.25, 0.9),
    "yellow": (0.9, 0.85, 0.15),
    "cyan": (0.15, 0.8, 0.85),
    "magenta": (0.85, 0.2, 0.8),
    "orange": (0.95, 0.55, 0.1),
    "white": (1.0, 1.0, 1.0),
    "gray": (0.5, 0.5, 0.5),
    "black": (0.0, 0.0, 0.0),
}
Color = str | Sequence[float]


def from_palette(
    palette: tuple[Color, ...] | None, channels: int, index: Tensor, uniform: Callable[..., Tensor]
) -> Tensor:
    """Colors (n, 3): those of the palette at `index`, or any, drawn by `uniform(low, high, channels)`."""
    if palette is None:
        return uniform(0, 1, channels).expand(-1, 3).contiguous()
    return torch.tensor([rgb(color) for color in palette])[index]


def rgb(color: Color) -> tuple[float, ...]:
    """A color as three numbers."""
    if isinstance(color, str):
        if color not in COLORS:
            raise InputError(f"a color is one of {', '.join(COLORS)}, or three numbers from 0 to 1, not {color!r}")
        return COLORS[color]
    values = tuple(float(value) for value in color)
    if len(values) != 3 or min(values) < 0 or max(values) > 1:
        raise InputError(f"a color is three numbers from 0 to 1, not {color}")
    return values
