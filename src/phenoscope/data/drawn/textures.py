"""Patches of texture without any object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from .colors import Color
from .draw import Recipe
from .render import render


def texture(
    kinds: str | Sequence[str],
    n: int,
    *,
    size: int = 32,
    colors: Sequence[Color] | None = None,
    period: tuple[float, float] = (4.0, 6.0),
    contrast: float = 0.25,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """Images of nothing but texture: concepts, and material that says nothing.

    Args:
        kinds: "flat", "stripes", "dots", "checks", "noise", "smooth", or several, from which each image takes one.
        n: how many.
        size: pixels a side.
        colors: names or (red, green, blue) from 0 to 1; any unless said.
        period: pixels after which a texture repeats, lowest and highest.
        contrast: up and down from the color.
        generator: what draws.

    Returns:
        (n, 3, size, size) from 0 to 1; `Scenes.normalize` makes them like the images of a data set.

    Raises:
        InputError: an argument outside its range.

    Examples:
        >>> texture("stripes", 4, generator=0).shape
        torch.Size([4, 3, 32, 32])
    """
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
    recipe = Recipe(
        size=size,
        channels=3,
        classes=("circle", "square"),
        radius=(0.1, 0.1),
        rotation=0.0,
        colors=None,
        textures=("flat",),
        period=period,
        contrast=0.0,
        backgrounds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
        background_colors=None if colors is None else tuple(colors),
        background_contrast=contrast,
        second=0.0,
        soft=0.0,
        label="shape",
        correlate={},
    )
    recipe.check()
    factors, _ = recipe.draw(n, seeded(generator))
    return render(factors.change(shape=-1), size=size)[0]
