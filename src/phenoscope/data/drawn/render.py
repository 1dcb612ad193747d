"""Factors in, pixels and masks out."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from .outlines import OUTLINES, outline
from .patterns import PATTERNS, pattern

BACKGROUNDS = (*PATTERNS, "smooth")
WAVES = 15  # cosines in a smooth background: 0 to 3 half waves each way, but for the constant
_CHUNK = 256
_NAMES = {"shape": OUTLINES, "texture": PATTERNS, "background": BACKGROUNDS}


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """All that makes n images of up to k objects each; later objects lie over earlier ones.

    Attributes:
        shape: (n, k) index into `data.OUTLINES`; -1 is no object.
        x, y: (n, k) center in pixels from the left and upper edge; the first pixel's center is 0.5.
        radius: (n, k) pixels.
        rotation: (n, k) radians, clockwise.
        color: (n, k, 3) from 0 to 1.
        texture: (n, k) index into `data.PATTERNS`; with `period` (pixels), `angle`, `phase` (radians) and `contrast`,
            which is what the pattern adds to the color at its height and takes away at its depth; each (n, k).
        background: (n,) index into `data.BACKGROUNDS`.
        background_color: (n, 3).
        background_period, background_angle, background_phase, background_contrast: (n,) of a patterned background.
        waves: (n, 3, 15) of a smooth background: cosines over the image, in units of `background_contrast`.
    """

    shape: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    rotation: Tensor
    color: Tensor
    texture: Tensor
    period: Tensor
    angle: Tensor
    phase: Tensor
    contrast: Tensor
    background: Tensor
    background_color: Tensor
    background_period: Tensor
    background_angle: Tensor
    background_phase: Tensor
    background_contrast: Tensor
    waves: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: Any) -> Factors:
        """The factors of some images: a slice, indices, or which of them."""
        return Factors(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def change(self, **values: Tensor | float | str) -> Factors:
        """The same scenes under other values of some factors.

        Args:
            values: by factor, a number or tensor that broadcasts with it, or the name of a shape, texture or
                background.

        Raises:
            InputError: no such factor or name.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        changed: dict[str, Tensor] = {}
        for name, value in values.items():
            if name not in fields:
                raise InputError(f"there is no factor {name!r}; the factors are {', '.join(sorted(fields))}")
            if isinstance(value, str):
                value = index_of(name, value)
            old = getattr(self, name)
            changed[name] = torch.as_tensor(value, dtype=old.dtype, device=old.device).expand_as(old).clone()
        return dataclasses.replace(self, **changed)


def index_of(factor: str, name: str) -> int:
    """The index that stands for a shape, a texture or a background."""
    if factor not in _NAMES:
        raise InputError(f"{factor} is given by numbers, not by the name {name!r}")
    if name not in _NAMES[factor]:
        raise InputError(f"a {factor} is one of {', '.join(_NAMES[factor])}, not {name!r}")
    return _NAMES[factor].index(name)


def render(factors: Factors, *, size: int = 32, soft: float = 0.0) -> tuple[Tensor, Tensor]:
    """Draw images.

    Edges are anti-aliased by the distance of a pixel's center to the outline.

    Args:
        factors: of the images.
        size: pixels a side.
        soft: over how many pixels more than one an edge fades, so that a large value blurs the shape but not its
            texture.

    Returns:
        Images (n, 3, size, size) from 0 to 1, and masks (n, k, size, size), bool: the pixels whose center lies in
        the object, whether another lies over it or not.

    Raises:
        InputError: a size or softness out of range.
    """
    if size < 1 or soft < 0:
        raise InputError(f"size must be at least 1 and soft at least 0, not {size} and {soft}")
    n, objects = factors.shape.shape
    images = torch.empty(n, 3, size, size, device=factors.x.device)
    masks = torch.zeros(n, objects, size, size, dtype=torch.bool, device=factors.x.device)
    center = torch.arange(size, device=factors.x.device) + 0.5
    y, x = center[:, None].expand(size, size), center[None, :].expand(size, size)
    for start in range(0, n, _CHUNK):  # small enough for the cache
        rows = slice(start, start + _CHUNK)
        part = factors[rows]
        image = _background(part, x, y)
        for number in range(objects):
            distance = _distance(part, number, x, y)
            masks[rows, number] = distance < 0
            cover = (0.5 - distance / (1 + soft)).clamp_(0, 1)[:, None]
            paint = _patterned(part.texture[:, number], x, y, *_pattern_factors(part, number))
            color = part.color[:, number, :, None, None]
            image += ((color if paint is None else (color + paint[:, None]).clamp_(0, 1)) - image) * cover
        images[rows] = image
    return images, masks


def _background(factors: Factors, x: Tensor, y: Tensor) -> Tensor:
    size = len(x)
    smooth = (factors.background == BACKGROUNDS.index("smooth")) * factors.background_contrast
    image = (smooth[:, None, None] * factors.waves).flatten(0, 1) @ _cosines(size).to(x)
    image = image.view(-1, 3, size, size).add_(factors.background_color[:, :, None, None])
    paint = _patterned(
        factors.background,
        x,
        y,
        factors.background_period,
        factors.background_angle,
        factors.background_phase,
        factors.background_contrast,
    )
    return (image if paint is None else image.add_(paint[:, None])).clamp_(0, 1)


def _pattern_factors(factors: Factors, number: int) -> tuple[Tensor, ...]:
    fields = (factors.period, factors.angle, factors.phase, factors.contrast)
    return tuple(field[:, number] for field in fields)


def _distance(factors: Factors, number: int, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of every pixel to an object, (n, size, size); infinite where there is none."""
    distance = torch.full((len(factors), *x.shape), math.inf, device=x.device)
    shapes = factors.shape[:, number]
    for kind in shapes.unique().tolist():
        if kind < 0:
            continue
        rows = (shapes == kind).nonzero()[:, 0]
        own_x, own_y, radius, rotation = (
            field[rows, number, None, None] for field in (factors.x, factors.y, factors.radius, factors.rotation)
        )
        right, down = x - own_x, y - own_y
        if rotation.any():
            cosine, sine = rotation.cos(), rotation.sin()
            right, down = right * cosine + down * sine, down * cosine - right * sine
        distance[rows] = outline(OUTLINES[kind], right, down, radius)
    return distance


def _patterned(
    kinds: Tensor, x: Tensor, y: Tensor, period: Tensor, angle: Tensor, phase: Tensor, contrast: Tensor
) -> Tensor | None:
    """What the patterns add to the colors, (n, size, size); `None` where all are flat."""
    paint = None
    for kind in kinds.unique().tolist():
        if BACKGROUNDS[kind] in ("flat", "smooth"):
            continue
        rows = (kinds == kind).nonzero()[:, 0]
        settings = {"period": period, "angle": angle, "phase": phase}
        own = {name: value[rows, None, None] for name, value in settings.items()}
        paint = torch.zeros(len(kinds), *x.shape, device=x.device) if paint is None else paint
        paint[rows] = contrast[rows, None, None] * pattern(PATTERNS[kind], x, y, **own)
    return paint


@functools.lru_cache(8)
def _cosines(size: int) -> Tensor:
    """Cosines over the image (15, size * size), such that N(0, 1) coefficients give pixels of variance 1 on average."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    line = torch.cos(math.pi * torch.arange(4)[:, None] * place)
    waves = (line[:, None, :, None] * line[None, :, None, :]).flatten(2).flatten(0, 1)[1:]
    return (waves / waves.square().mean(1).sum().sqrt()).float()
