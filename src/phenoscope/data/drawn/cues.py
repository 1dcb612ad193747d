"""Images whose cues disagree, and tags that give the class away."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from .render import Factors, index_of
from .shapes import Scenes

# a line of unreadable print
_TAG = ("1101011011", "1001010001", "1101111010", "0101001011")


@dataclasses.dataclass(frozen=True, eq=False)
class Conflict:
    """Images of one class's shape in another's texture.

    Attributes:
        x: images, as the data set has them.
        shape, texture: (N,) the class that each cue speaks for.
        masks: (N, 1, size, size).
        factors: of the images.
    """

    x: Tensor
    shape: Tensor
    texture: Tensor
    masks: Tensor
    factors: Factors


def cue_conflict(scenes: Scenes, each: int = 20, *, generator: torch.Generator | int | None = None) -> Conflict:
    """The shape of one class in the texture of another, for all ordered pairs of classes.

    After Geirhos, Rubisch, Michaelis, Bethge, Wichmann and Brendel, "ImageNet-Trained CNNs Are Biased towards Texture"
    (ICLR 2019), section 2.3, with drawn textures in place of style transfer. All else is drawn as in the data set.

    Args:
        scenes: labelled by shape, where every class has a texture of its own: `correlate={"texture": table}` with each
            row's most probable texture in no other row.
        each: images a pair.
        generator: what draws.

    Raises:
        InputError: scenes without such a rule, or with two objects.
    """
    recipe = scenes.recipe
    table = recipe.correlate.get("texture")
    if recipe.label != "shape" or table is None or recipe.second:
        raise InputError(
            'cue_conflict needs single objects labelled by shape, a texture for each: correlate={"texture": table}'
        )
    if each < 1:
        raise InputError(f"each must be at least 1, not {each}")
    own = torch.as_tensor(table).argmax(1)
    count = len(recipe.classes)
    if len(own.unique()) < count:
        raise InputError("cue_conflict needs another most probable texture for every class")
    pairs = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].repeat_interleave(each, 0)
    drawn, _ = recipe.draw(len(pairs), seeded(generator))
    outlines = torch.tensor([index_of("shape", name) for name in recipe.classes])
    patterns = torch.tensor([index_of("texture", name) for name in recipe.textures])
    drawn = drawn.change(shape=outlines[pairs[:, :1]], texture=patterns[own[pairs[:, 1:]]])
    x, masks = scenes.render(drawn)
    return Conflict(x, pairs[:, 0], pairs[:, 1], masks, drawn)


def add_tag(
    x: Tensor,
    *,
    tag: Tensor | None = None,
    corner: Literal["lower left", "lower right", "upper left", "upper right"] = "lower left",
    rows: Tensor | None = None,
    range: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Paste a small tag into a corner of images, like the source tag of Lapuschkin et al. (Nature Communications 2019).

    Args:
        x: images (N, C, H, W).
        tag: (h, w) or (C, h, w), from 0, the lowest value, to 1, the highest; 4x10 pixels of print unless said.
        corner: where it goes, one pixel from the edges if there is room.
        rows: which images get it, as indices or (N,) bool; all unless said.
        range: the lowest and the highest value of a pixel: `Split.range`.

    Returns:
        New images.

    Raises:
        InputError: a tag larger than the images, or another corner.
    """
    tag = torch.tensor([[int(bit) for bit in line] for line in _TAG]) if tag is None else tag
    height, width = tag.shape[-2:]
    if x.ndim != 4 or height > x.shape[2] or width > x.shape[3]:
        raise InputError(f"a tag of {height}x{width} does not fit into images of shape {tuple(x.shape)}")
    vertical, _, horizontal = corner.partition(" ")
    if vertical not in ("lower", "upper") or horizontal not in ("left", "right"):
        raise InputError(f'corner is "lower left", "lower right", "upper left" or "upper right", not {corner!r}')
    down, along = int(height < x.shape[2]), int(width < x.shape[3])
    top = down if vertical == "upper" else x.shape[2] - height - down
    left = along if horizontal == "left" else x.shape[3] - width - along
    low, high = range
    patch = (low + (high - low) * tag.double()).to(x)
    tagged = x.clone()
    place = tagged[:, :, top : top + height, left : left + width]
    place[slice(None) if rows is None else rows.to(x.device)] = patch
    return tagged
