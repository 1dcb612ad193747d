"""Gaussian classes, points on a sphere, and classes that a plane divides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded


def gaussian_mixture(
    n: int,
    *,
    means: Tensor | Sequence[Sequence[float]],
    std: float | Sequence[float] = 1.0,
    weights: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Points of K spherical Gaussians, labelled by the Gaussian.

    Args:
        n: how many points.
        means: (K, d), the centers; `[[-1.0], [1.0]]` times a vector is the pair of opposite classes.
        std: the standard deviation of every coordinate, one for all Gaussians or one each.
        weights: how probable each Gaussian is; all equally unless said.
        dtype: of the points.
        generator: what draws.

    Returns:
        Points (n, d), and labels (n,), int64, from 0 to K - 1.

    Raises:
        InputError: centers that are no matrix, or a number out of range.

    Examples:
        >>> x, y = gaussian_mixture(5, means=[[0.0, 0.0], [9.0, 9.0]], generator=0)
        >>> x.shape, bool(((x.mean(1) > 4.5) == (y == 1)).all())
        (torch.Size([5, 2]), True)
    """
    centers = torch.as_tensor(means, dtype=dtype)
    if centers.ndim != 2 or 0 in centers.shape:
        raise InputError(f"means must be (classes, dimensions), not of shape {tuple(centers.shape)}")
    _count(n)
    share = torch.ones(len(centers)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    deviation = torch.as_tensor(std, dtype=dtype)
    if share.shape != centers.shape[:1] or (share < 0).any() or not share.sum() > 0:
        raise InputError(f"weights must be {len(centers)} numbers, none negative, not {weights}")
    if deviation.shape not in ((), centers.shape[:1]) or (deviation < 0).any():
        raise InputError(f"std must be one number or {len(centers)}, none negative, not {std}")
    generator = seeded(generator)
    device = generator.device
    y = torch.multinomial(share.to(device), n, replacement=True, generator=generator).cpu()
    noise = torch.randn(n, centers.shape[1], dtype=dtype, generator=generator, device=device).cpu()
    return centers[y] + deviation.expand(len(centers))[y, None] * noise, y


def sphere(
    n: int,
    d: int,
    *,
    radius: float = 1.0,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """Points drawn uniformly from the sphere of this radius in d dimensions, (n, d).

    Raises:
        InputError: a number that is not positive.

    Examples:
        >>> sphere(3, 20, radius=2.0, generator=0).norm(dim=1)
        tensor([2., 2., 2.])
    """
    _count(n)
    if d < 1 or not 0 < radius < math.inf:
        raise InputError(f"d must be at least 1 and the radius positive, not {d} and {radius}")
    generator = seeded(generator)
    points = torch.randn(n, d, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    return (radius * points / points.norm(dim=1, keepdim=True)).to(dtype)


def separable(
    n: int,
    d: int,
    *,
    shift: float = 2.0,
    std: float = 0.6,
    tries: int = 100,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Two Gaussian classes that a plane through the origin divides without error.

    x = y shift e_1 + N(0, std^2 I) with y = -1 or 1. A set that no plane divides (a linear program tells) is drawn
    again, whole, so that the law of a set is that of n such points given that they are separable.

    Args:
        n: points.
        d: dimensions.
        shift, std: how far the centers lie from the origin, and the spread around them.
        tries: how many sets to draw at most.
        dtype: of the points.
        generator: what draws.

    Returns:
        Points (n, d), and labels (n,) of the same dtype, -1 or 1.

    Raises:
        InputError: a number out of range, or no separable set among those drawn.
    """
    _count(n)
    if d < 1 or std < 0 or tries < 1:
        raise InputError(f"d and tries must be at least 1 and std at least 0, not {d}, {tries} and {std}")
    generator = seeded(generator)
    device = generator.device
    for _ in range(tries):
        y = 2.0 * torch.randint(2, (n,), generator=generator, device=device).cpu().to(dtype) - 1
        x = std * torch.randn(n, d, dtype=dtype, generator=generator, device=device).cpu()
        x[:, 0] += shift * y
        if _divided(x, y):
            return x, y
    raise InputError(f"none of {tries} sets was separable: take fewer points than {n}, or a smaller std")


def _divided(x: Tensor, y: Tensor) -> bool:
    """Whether some w has y_i <w, x_i> >= 1 for all i."""
    from scipy.optimize import linprog

    margins = -(y[:, None] * x).double().numpy()
    found = linprog([0.0] * x.shape[1], A_ub=margins, b_ub=[-1.0] * len(x), bounds=(None, None))
    return found.status == 0


def _count(n: int) -> None:
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
