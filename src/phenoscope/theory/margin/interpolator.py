"""A network of two layers, written down, that goes through any points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import seeded

_DIRECTIONS = 10


def exact_interpolator(x: Tensor, y: Tensor, *, generator: torch.Generator | int | None = None) -> Interpolator:
    """A two-layer ReLU network of 2n + d weights that gives n distinct points any values.

    f(x) = sum_j w_j max(<a, x> - b_j, 0), theorem 1 of Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep
    learning requires rethinking generalization" (ICLR 2017). Along a random direction a the points lie in an order
    z_1 < ... < z_n; with thresholds b_1 < z_1 and z_(j-1) <= b_j < z_j the activations form a triangular matrix, so
    that w follows for any y. Here b_j = z_(j-1), the choice without overshoot: f runs straight from point to point, its
    slope changing by w_j at each. Of ten directions it takes the one whose closest points lie furthest apart.

    Args:
        x: (n, ...) points, no two the same.
        y: (n,) values; labels count as numbers.
        generator: what the directions are drawn from.

    Returns:
        A network from (N, ...) to (N,), in float64, that is exact up to rounding: about 1e-16 of |y| over the smallest
        gap of z, in which all points span 1.

    Raises:
        InputError: no points, another number of values, numbers that are not finite, or two points that are the same.

    Examples:
        >>> x, y = torch.eye(3), torch.tensor([5.0, -1.0, 2.0])
        >>> net = exact_interpolator(x, y, generator=0)
        >>> bool((net(x) - y).abs().max() < 1e-9), sum(p.numel() for p in net.parameters()) == 2 * 3 + 3
        (True, True)
    """
    if x.ndim < 2 or not len(x) or y.shape != x.shape[:1]:
        raise InputError(f"points (n, ...) and values (n,) are needed, not {tuple(x.shape)} and {tuple(y.shape)}")
    points, values = x.detach().flatten(1).double(), y.detach().to(x.device).double()
    if not (torch.isfinite(points).all() and torch.isfinite(values).all()):
        raise InputError("points and values must be finite numbers")
    generator = seeded(generator)
    drawn = torch.randn(_DIRECTIONS, points.shape[1], dtype=torch.float64, generator=generator, device=generator.device)
    drawn = drawn.to(points.device)
    along = (points @ drawn.T).sort(dim=0).values
    if len(points) > 1:
        spans = along[-1] - along[0]
        gaps = torch.where(spans > 0, along.diff(dim=0).min(0).values / spans, 0.0)
        best = int(gaps.argmax())
        if not gaps[best] > 0:
            raise InputError("two of the points are the same, or too close to tell apart: give each only once")
        direction = drawn[best] / spans[best]
    else:
        direction = drawn[0]
    place, order = (points @ direction).sort()
    thresholds = torch.cat([place[:1] - 1, place[:-1]])
    slopes = values[order].diff(prepend=values.new_zeros(1)) / (place - thresholds)
    return Interpolator(direction, thresholds, slopes.diff(prepend=slopes.new_zeros(1)))


class Interpolator(nn.Module):
    """f(x) = sum_j w_j max(<a, x> - b_j, 0).

    Attributes:
        direction: (d,), a.
        thresholds: (n,), b.
        weights: (n,), w.
    """

    def __init__(self, direction: Tensor, thresholds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction)
        self.thresholds = nn.Parameter(thresholds)
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        along = x.flatten(1).to(self.direction) @ self.direction
        return (along[:, None] - self.thresholds).relu() @ self.weights
