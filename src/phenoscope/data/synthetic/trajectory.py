"""Paths through the space of inputs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import InputError


def trajectory(points: Tensor, t: Tensor | int = 1000, *, kind: Literal["line", "ellipse", "circle"]) -> Tensor:
    """Inputs along a path that given points fix.

    Args:
        points: (P, ...), inputs.
        t: places on the path, numbers from 0 to 1; or how many to take at even distances. Derivatives pass through.
        kind: "line" goes straight from each point to the next, at equal times, from t = 0 to t = 1. "ellipse" is the
            closed curve c + a cos(2 pi t) + b sin(2 pi t) about the mean c of three points that meets them at t = 0,
            1/3 and 2/3: a = (2 x_1 - x_2 - x_3) / 3, b = (x_2 - x_3) / sqrt(3) (the path of Novak, Bahri, Abolafia,
            Pennington and Sohl-Dickstein, ICLR 2018). "circle" is the circle about the origin, in the plane of two
            points, that starts at the first and turns toward the second (the great circle of Poole, Lahiri, Raghu,
            Sohl-Dickstein and Ganguli, NeurIPS 2016). A closed curve is at t = 1 where it was at t = 0; of an even
            number of places, it is left out.

    Returns:
        (places, ...), in the dtype of the points.

    Raises:
        InputError: another kind, the wrong number of points, points that are not finite, or a circle through two
            points in one direction from the origin.

    Examples:
        >>> trajectory(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([0.25]), kind="circle").round(decimals=4)
        tensor([[0., 2.]])
    """
    wanted = {"line": "at least two", "ellipse": "three", "circle": "two"}
    if kind not in wanted:
        raise InputError(f"kind must be line, ellipse or circle, not {kind!r}")
    count = points.shape[0] if points.ndim else 0
    if not (count >= 2 if kind == "line" else count == (3 if kind == "ellipse" else 2)):
        raise InputError(f"kind={kind!r} needs {wanted[kind]} points, not {count}")
    if not points.is_floating_point() or not torch.isfinite(points).all():
        raise InputError("points must be finite numbers of a floating-point type")
    if not isinstance(t, Tensor):
        if t < 1:
            raise InputError(f"a path has at least 1 place, not {t}")
        t = torch.arange(t, dtype=torch.float64) / max(1, t - 1 if kind == "line" else t)
    elif t.ndim != 1:
        raise InputError(f"t must be a list of places (T,), not of shape {tuple(t.shape)}")
    flat = points.flatten(1).double() if points.ndim > 1 else points.double()[:, None]
    t = t.to(flat)
    if kind == "line":
        leg = (t.detach() * (count - 1)).floor().long().clamp(0, count - 2)
        found = flat[leg] + (t * (count - 1) - leg)[:, None] * (flat[leg + 1] - flat[leg])
    else:
        center, across, up = _ellipse(flat) if kind == "ellipse" else _circle(flat)
        angle = 2 * math.pi * t[:, None]
        found = center + angle.cos() * across + angle.sin() * up
    return found.reshape(len(t), *points.shape[1:]).to(points.dtype)


def _ellipse(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.mean(0), (2 * x[0] - x[1] - x[2]) / 3, (x[1] - x[2]) / math.sqrt(3)


def _circle(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    radius = x[0].norm()
    first = x[0] / radius
    rest = x[1] - (x[1] @ first) * first
    if not rest.norm() > 1e-12 * x[1].norm():
        raise InputError("both points lie in one direction from the origin: they span no circle")
    return torch.zeros_like(first), radius * first, radius * rest / rest.norm()
