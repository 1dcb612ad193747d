"""Scikit-learn's two photographs, and patches of images."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded


def photos() -> Tensor:
    """The photographs that scikit-learn brings along, of a Chinese temple and of a flower.

    Returns:
        (2, 3, 427, 640), from 0 to 1.
    """
    return _photos().clone()


def patches(
    images: Tensor,
    n: int,
    *,
    size: int = 32,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """Squares cut from random places of random images.

    Args:
        images: (N, C, H, W).
        n: how many.
        size: pixels a side.
        generator: what chooses.

    Returns:
        (n, C, size, size).

    Raises:
        InputError: images smaller than a patch, or no patch.

    Examples:
        >>> patches(photos(), 5, size=8, generator=0).shape
        torch.Size([5, 3, 8, 8])
    """
    if images.ndim != 4 or not len(images) or n < 1 or not 1 <= size <= min(images.shape[2:]):
        raise InputError(f"{n} patches of {size}x{size} cannot be cut from images of shape {tuple(images.shape)}")
    generator = seeded(generator)
    number, top, left = (
        torch.randint(count, (n, 1, 1), generator=generator, device=generator.device).to(images.device)
        for count in (len(images), images.shape[2] - size + 1, images.shape[3] - size + 1)
    )
    side = torch.arange(size, device=images.device)
    return images[number, :, top + side[:, None], left + side].permute(0, 3, 1, 2).contiguous()


@functools.cache
def _photos() -> Tensor:
    import numpy
    from sklearn.datasets import load_sample_images

    pixels = numpy.stack(load_sample_images().images)
    return (torch.from_numpy(pixels).float() / 255).permute(0, 3, 1, 2).contiguous()
