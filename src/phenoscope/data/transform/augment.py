"""Random views of images, each image its own: `transform(x, generator) -> x`.

Settings are bound by `functools.partial`, several transforms put together by `compose`. Without a generator they draw
from torch's own, in a way that `torch.func.vmap` understands.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from .warp import warp

Transform = Callable[[Tensor, torch.Generator | None], Tensor]
Generator = torch.Generator | int | None


def spatial(
    x: Tensor,
    generator: Generator = None,
    *,
    shift: float = 2.0,
    rotation: float = 0.25,
    scale: tuple[float, float] = (0.8, 1.2),
) -> Tensor:
    """Shift, turn and scale every image at random, by bilinear resampling; edges are continued.

    Args:
        x: images (N, C, H, W).
        generator: what draws.
        shift: up to how many pixels in either direction, on both axes.
        rotation: up to how many radians in either direction.
        scale: by which factors, from the lowest to the highest.

    Returns:
        Images (N, C, H, W).

    Raises:
        InputError: something else than images, or a factor that is not positive.
    """
    if not 0 < scale[0] <= scale[1]:
        raise InputError(f"scale must be (lowest, highest), both positive, not {scale}")
    draws = _drawing(x, generator)
    angle = _uniform(x, draws, -rotation, rotation)
    factor = _uniform(x, draws, *scale)
    across, down = (_uniform(x, draws, -shift, shift) for _ in range(2))
    cos, sin = angle.cos() / factor, angle.sin() / factor
    matrix = torch.stack([torch.stack([cos, sin, across], 1), torch.stack([-sin, cos, down], 1)], 1)
    return warp(x, matrix)


def crop(
    x: Tensor,
    generator: Generator = None,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Tensor:
    """Cut a random rectangle out of every image, resample it to the whole size, and mirror some of them.

    The random resized crop of Szegedy et al. (CVPR 2015), as SimCLR uses it.

    Args:
        x: images (N, C, H, W).
        generator: what draws.
        area: which share of the image, from the lowest to the highest, uniform.
        aspect: width by height of the rectangle, relative to the image's; its logarithm is uniform. A side that would
            be longer than the image's is cut to it.
        flip: the probability to be mirrored left to right.

    Returns:
        Images (N, C, H, W).

    Raises:
        InputError: something else than images, or shares outside (0, 1].
    """
    if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
        raise InputError(f"area must lie in (0, 1] and aspect above 0, lowest first, not {area} and {aspect}")
    draws = _drawing(x, generator)
    height, width = x.shape[-2:]
    share = _uniform(x, draws, *area)
    ratio = _uniform(x, draws, math.log(aspect[0]), math.log(aspect[1])).exp()
    wide, high = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
    across = _uniform(x, draws, -0.5, 0.5) * (1 - wide) * width
    down = _uniform(x, draws, -0.5, 0.5) * (1 - high) * height
    mirrored = torch.where(_uniform(x, draws, 0, 1) < flip, -1.0, 1.0).to(x.dtype)
    zero = torch.zeros_like(wide)
    matrix = torch.stack([torch.stack([wide * mirrored, zero, across], 1), torch.stack([zero, high, down], 1)], 1)
    return warp(x, matrix)


def color(
    x: Tensor,
    generator: Generator = None,
    *,
    strength: float = 1.0,
    gain: tuple[float, float] = (0.4, 1.2),
    offset: tuple[float, float] = (-0.09, 0.21),
) -> Tensor:
    """Permute the channels of every image at random, then multiply each by a random factor and add a random number.

    Args:
        x: images (N, C, H, W), with pixels about from 0 to 1.
        generator: what draws.
        strength: how far to go from the image, 0, to its recolored form, 1, along a straight line.
        gain, offset: lowest and highest factor and summand.

    Returns:
        Images (N, C, H, W), not cut to any range.

    Raises:
        InputError: a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength must lie between 0 and 1, not {strength}")
    draws = _drawing(x, generator)
    each = x.flatten(2)[:, :, 0]
    order = _uniform(each, draws, 0, 1, whole=True).argsort(1)
    place = order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand_as(x)
    factor = _uniform(each, draws, *gain, whole=True).reshape(*each.shape, *[1] * (x.ndim - 2))
    summand = _uniform(each, draws, *offset, whole=True).reshape(*each.shape, *[1] * (x.ndim - 2))
    return torch.lerp(x, x.gather(1, place) * factor + summand, strength)


def compose(*transforms: Transform) -> Transform:
    """One transform that applies several in turn; all draw from the same generator.

    Examples:
        >>> from functools import partial
        >>> view = compose(partial(spatial, rotation=0.5), partial(color, strength=0.8))
        >>> view(torch.rand(2, 3, 12, 12), 0).shape
        torch.Size([2, 3, 12, 12])
    """

    def composed(x: Tensor, generator: Generator = None) -> Tensor:
        draws = _drawing(x, generator)
        for transform in transforms:
            x = transform(x, draws)
        return x

    return composed


def _drawing(x: Tensor, generator: Generator) -> torch.Generator | None:
    return None if generator is None else seeded(generator, x.device)


def _uniform(x: Tensor, generator: torch.Generator | None, low: float, high: float, *, whole: bool = False) -> Tensor:
    """One number for each image, or `whole`, one for each entry of `x`."""
    like = x if whole else x.flatten(1)[:, 0]
    if generator is None:
        drawn = torch.rand_like(like)
    else:
        drawn = torch.rand(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
    return low + (high - low) * drawn
