"""How far a point lies from the outline of a shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import InputError


def outline(kind: str, x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    """Signed distance of points to a shape around the origin, in pixels: negative inside, positive outside.

    Every shape lies within the circle of the given radius. A pixel's share that the shape covers is close to
    0.5 - distance, cut off at 0 and 1.

    Args:
        kind: "circle", "square", "triangle", "star", "cross", "bar" or "ring".
        x, y: coordinates, to the right and downward.
        radius: of the circle round the shape; of a shape that `x` broadcasts with.

    Returns:
        Distances of the broadcast shape.

    Raises:
        InputError: another kind.

    Examples:
        >>> outline("circle", torch.tensor([0.0, 10.0]), torch.zeros(2), 10.0)
        tensor([-9.,  1.])
    """
    if kind not in _OUTLINES:
        raise InputError(f"a shape is one of {', '.join(OUTLINES)}, not {kind!r}")
    return _OUTLINES[kind](x, y, radius)


def _circle(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return torch.hypot(x, y) - 0.9 * radius


def _ring(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return (torch.hypot(x, y) - 0.7 * radius).abs() - 0.25 * radius


def _box(x: Tensor, y: Tensor, half_width: Tensor | float, half_height: Tensor | float) -> Tensor:
    over, under = x.abs() - half_width, y.abs() - half_height
    return torch.hypot(over.clamp(min=0), under.clamp(min=0)) + torch.maximum(over, under).clamp(max=0)


def _square(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return _box(x, y, 0.7 * radius, 0.7 * radius)


def _bar(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return _box(x, y, 0.95 * radius, 0.3 * radius)


def _star_polygon(x: Tensor, y: Tensor, radius: Tensor | float, points: int, inner: float) -> Tensor:
    """A polygon whose corners lie in turn on the circle and on one `inner` times as large; a corner points upward.

    Reflections map the plane onto the wedge between an outer corner a, straight ahead, and the inner corner b next to
    it, so that only one edge is left to measure.
    """
    wedge = math.pi / points
    length = torch.hypot(x, y)
    angle = ((torch.atan2(x, -y) + wedge).remainder(2 * wedge) - wedge).abs()
    across, ahead = length * angle.sin(), length * angle.cos() - radius
    b_across, b_ahead = inner * radius * math.sin(wedge), radius * (inner * math.cos(wedge) - 1)
    square = b_across * b_across + b_ahead * b_ahead
    along = ((across * b_across + ahead * b_ahead) / square).clamp(0, 1)
    distance = torch.hypot(across - along * b_across, ahead - along * b_ahead)
    return torch.where(across * b_ahead - ahead * b_across < 0, distance, -distance)


def _triangle(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return _star_polygon(x, y, radius, 3, 0.5)


def _star(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return _star_polygon(x, y, radius, 5, 0.45)


def _cross(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    x, y = x.abs(), y.abs()
    along, across = torch.maximum(x, y), torch.minimum(x, y)
    end, side = 0.94 * radius, 0.3 * radius
    past, beside = along - end, across - side
    outside = torch.hypot(past.clamp(min=0), beside.clamp(min=0))
    # in the middle the nearest place is the corner between two arms
    inside = torch.where(along > side, torch.maximum(past, beside), -torch.hypot(along - side, beside))
    return torch.where((past > 0) | (beside > 0), outside, inside)


_OUTLINES: dict[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "bar": _bar,
    "ring": _ring,
}
OUTLINES = tuple(_OUTLINES)
