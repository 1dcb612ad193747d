"""Digits in colors that say nothing about the class: the bench of the contrastive methods."""

from __future__ import annotations

import torch

from ..core.random import seeded
from .digits import digits
from .split import Split

_TRAIN = 1300


def tinted_digits(*, generator: torch.Generator | int | None = 0) -> Split:
    """Every digit once, at a random place on a 12x12 canvas, in a random ink on a random ground.

    With m the digit, from 0 to 1, pasted 0 to 4 pixels from the top and the left: x = m ink + (1 - m) ground, where ink
    is uniform in [0.5, 1]^3 and ground in [0, 0.4]^3, drawn once for each image. So the tint tells one image from
    another, a shortcut for methods that learn by telling images apart, and nothing about the digit.

    Args:
        generator: what places and tints them. Which digits are for training does not depend on it.

    Returns:
        A split of 1300 and 497 images (N, 3, 12, 12) from 0 to 1, and labels (N,) from 0 to 9.

    Examples:
        >>> tinted_digits(generator=0).train[0].shape
        torch.Size([1300, 3, 12, 12])
    """
    plain = digits(train=_TRAIN, scale="unit", generator=0)
    pixels = torch.cat([plain.train[0], plain.test[0]])
    generator = seeded(generator)
    n, device = len(pixels), generator.device
    top, left = torch.randint(0, 5, (2, n, 1), generator=generator, device=device).cpu()
    ink = 0.5 + 0.5 * torch.rand(n, 3, 1, 1, generator=generator, device=device).cpu()
    ground = 0.4 * torch.rand(n, 3, 1, 1, generator=generator, device=device).cpu()
    canvas = torch.zeros(n, 12, 12)
    side = torch.arange(8)
    canvas[torch.arange(n)[:, None, None], (top + side)[:, :, None], (left + side)[:, None, :]] = pixels[:, 0]
    canvas = canvas[:, None]
    x = canvas * ink + (1 - canvas) * ground
    return Split(
        train=(x[:_TRAIN], plain.train[1]),
        validation=None,
        test=(x[_TRAIN:], plain.test[1]),
        range=(0.0, 1.0),
        classes=plain.classes,
        name="tinted digits",
    )
