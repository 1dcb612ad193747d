"""Scikit-learn's handwritten digits."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InputError
from ..core.random import seeded
from .split import Split


def digits(
    size: int = 8,
    channels: int = 1,
    *,
    train: int = 1400,
    validation: int = 0,
    scale: Literal["standard", "unit"] = "standard",
    generator: torch.Generator | int | None = 0,
) -> Split:
    """The 1797 real 8x8 digits that scikit-learn brings along (UCI's "Optical Recognition of Handwritten Digits").

    They are split at random, resampled bilinearly, repeated over the channels and standardized: the pixels of the
    training part have mean 0 and standard deviation 1, all pixels together.

    Args:
        size: pixels a side, at least 8.
        channels: how many equal channels an image gets.
        train, validation: images of these parts; the rest, at least one, is the test part.
        scale: "standard", or "unit": from 0, blank, to 1, full ink.
        generator: what splits them.

    Returns:
        A split of images (N, channels, size, size), float32, and labels (N,), int64, from 0 to 9.

    Raises:
        InputError: a size under 8, no channel, another scale, or parts that leave no image for training or testing.
    """
    if size < 8 or channels < 1:
        raise InputError(f"digits are at least 8 pixels a side with one channel, not {size} with {channels}")
    if scale not in ("standard", "unit"):
        raise InputError(f'scale must be "standard" or "unit", not {scale!r}')
    pixels, labels = raw_digits()
    if train < 1 or validation < 0 or train + validation >= len(labels):
        raise InputError(
            f"train={train} and validation={validation} must be at least 1 and 0 and leave some of the {len(labels)} "
            "digits to test on"
        )
    generator = seeded(generator)
    order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    x, y = pixels[order], labels[order]
    if size > 8:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        x = x.clamp(0, 16)  # interpolation may pass the limits by a rounding error
    if scale == "standard":
        mean, std = x[:train].mean(), x[:train].std(correction=0)
    else:
        mean, std = torch.tensor(0.0), torch.tensor(16.0)
    low, high = ((torch.tensor([0.0, 16.0]) - mean) / std).tolist()
    x = ((x - mean) / std).repeat(1, channels, 1, 1)

    def part(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return x[start:stop], y[start:stop]

    return Split(
        train=part(0, train),
        validation=part(train, train + validation) if validation else None,
        test=part(train + validation, len(y)),
        range=(low, high),
        classes=tuple(str(digit) for digit in range(10)),
        name="digits",
    )


@functools.cache
def raw_digits() -> tuple[Tensor, Tensor]:
    """All images (1797, 1, 8, 8), from 0 to 16, and their labels, in scikit-learn's order; not to be written to."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels).long()
