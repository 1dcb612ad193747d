"""Images of objects of which everything is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from ..split import Split
from .colors import Color
from .draw import Recipe
from .render import Factors, render


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes(Split):
    """A `Split` of drawn images that knows where their objects are and how each was made.

    Attributes:
        factors: by part, "train", "validation" and "test", the factors of its images.
        masks: by part, the pixels of every object, (N, objects, size, size), bool.
        recipe: how they were drawn.
        mean, std: what was subtracted from pixels from 0 to 1, and what they were then divided by.
    """

    factors: Mapping[str, Factors]
    masks: Mapping[str, Tensor]
    recipe: Recipe
    mean: float
    std: float

    def render(self, factors: Factors) -> tuple[Tensor, Tensor]:
        """Images of these factors as this data set has them, and their masks: the same scenes under another factor."""
        images, masks = render(factors, size=self.recipe.size, soft=self.recipe.soft)
        return self.normalize(images), masks

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels from 0 to 1 (N, 3, H, W), as this data set has them."""
        return (images[:, : self.recipe.channels] - self.mean) / self.std

    def to(self, device: torch.device | str) -> Scenes:
        """The same with every image, label and mask on a device; the factors stay."""
        moved = super().to(device)
        masks = {part: mask.to(device) for part, mask in self.masks.items()}
        parts = {part: getattr(moved, part) for part in ("train", "validation", "test")}
        return dataclasses.replace(self, masks=masks, **parts)


def shapes(
    *,
    train: int = 4000,
    validation: int = 0,
    test: int = 500,
    size: int = 32,
    channels: Literal[1, 3] = 3,
    classes: Sequence[str] = ("circle", "square", "triangle", "star", "cross"),
    radius: tuple[float, float] = (6.0, 9.0),
    rotation: float = 0.0,
    colors: Sequence[Color] | None = None,
    textures: Sequence[str] = ("flat",),
    period: tuple[float, float] = (4.0, 6.0),
    contrast: float = 0.25,
    backgrounds: Sequence[str] = ("smooth",),
    background_colors: Sequence[Color] | None = None,
    background_contrast: float = 0.08,
    second: float = 0.0,
    soft: float = 0.0,
    label: Literal["shape", "texture", "color", "background"] = "shape",
    correlate: Mapping[str, Any] | None = None,
    scale: Literal["standard", "unit"] = "standard",
    generator: torch.Generator | int | None = 0,
) -> Scenes:
    """Draw images of one or two objects on a background, with every factor controlled.

    Unless said otherwise: one upright object of five shapes, wholly inside, in any color, on a smooth random background
    around another color, some channel of which differs by 0.3 or more.

    Args:
        train, validation, test: images of these parts.
        size: pixels a side.
        channels: 3, or 1 of gray.
        classes: shapes: "circle", "square", "triangle", "star", "cross", "bar", "ring".
        radius: lowest and highest radius in pixels; it is uniform in between.
        rotation: largest angle either way, in radians.
        colors: of objects, names or (red, green, blue) from 0 to 1; any unless said.
        textures: of objects: "flat", "stripes", "dots", "checks", "noise"; in any direction.
        period: pixels after which a texture repeats, lowest and highest.
        contrast: how far a texture goes up and down from its color.
        backgrounds: "smooth", or a texture.
        background_colors: as `colors`; if given, they need not differ from the object's.
        background_contrast: standard deviation of a smooth background, amplitude of a textured one.
        second: share of images with a second object, of another shape and touching the first nowhere.
        soft: over how many pixels an edge fades, beyond anti-aliasing.
        label: which factor is the class. All values of it are equally likely, and so are those of other factors.
        correlate: by factor other than the label, probabilities (classes, values) of its values given the class, values
            in the order in which they are listed.
        scale: "standard" (pixels of the training part have mean 0 and standard deviation 1, all together), or "unit".
        generator: what draws.

    Returns:
        Images (N, channels, size, size) and labels (N,), with masks and factors.

    Raises:
        InputError: an argument outside its range.

    Examples:
        >>> tied = {"texture": [[0, 1]] + 4 * [[1, 0]]}  # stripes for the first class alone
        >>> scenes = shapes(train=10, test=5, textures=("flat", "stripes"), correlate=tied)
        >>> plain, _ = scenes.render(scenes.factors["test"].change(texture="flat"))
        >>> plain.shape
        torch.Size([5, 3, 32, 32])
    """
    recipe = Recipe(
        size=size,
        channels=channels,
        classes=tuple(classes),
        radius=(float(radius[0]), float(radius[1])),
        rotation=rotation,
        colors=None if colors is None else tuple(colors),
        textures=tuple(textures),
        period=(float(period[0]), float(period[1])),
        contrast=contrast,
        backgrounds=tuple(backgrounds),
        background_colors=None if background_colors is None else tuple(background_colors),
        background_contrast=background_contrast,
        second=second,
        soft=soft,
        label=label,
        correlate=dict(correlate or {}),
    )
    recipe.check()
    if train < 1 or validation < 0 or test < 1 or scale not in ("standard", "unit"):
        raise InputError(
            f"train={train} and test={test} must be at least 1, validation={validation} at least 0, and scale "
            f'"standard" or "unit", not {scale!r}'
        )
    drawn, y = recipe.draw(train + validation + test, seeded(generator))
    x, masks = render(drawn, size=size, soft=soft)
    x = x[:, :channels].contiguous()
    mean, std = 0.0, 1.0
    if scale == "standard":
        mean = x[:train].mean(dtype=torch.float64).item()
        std = x.sub_(mean)[:train].std(correction=0).item()
        x.div_(std)
    bounds = {"train": slice(0, train), "validation": slice(train, train + validation), "test": slice(-test, None)}
    if not validation:
        del bounds["validation"]
    return Scenes(
        train=(x[:train], y[:train]),
        validation=(x[bounds["validation"]], y[bounds["validation"]]) if validation else None,
        test=(x[-test:], y[-test:]),
        range=((0 - mean) / std, (1 - mean) / std),
        classes=recipe.names,
        name="shapes",
        factors={part: drawn[rows] for part, rows in bounds.items()},
        masks={part: masks[rows] for part, rows in bounds.items()},
        recipe=recipe,
        mean=mean,
        std=std,
    )
