"""Patterns of objects and backgrounds, as functions of the place."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import InputError


def pattern(kind: str, x: Tensor, y: Tensor, *, period: Tensor, angle: Tensor, phase: Tensor) -> Tensor:
    """The value of a pattern at points, from -1 to 1.

    Args:
        kind: "flat" (0 everywhere), "stripes", "dots", "checks", or "noise", waves of many directions.
        x, y: coordinates in pixels, to the right and downward.
        period: pixels after which it repeats, or the typical wavelength of noise.
        angle, phase: radians.

    Raises:
        InputError: another kind.
    """
    if kind not in _PATTERNS:
        raise InputError(f"a texture is one of {', '.join(PATTERNS)}, not {kind!r}")
    if kind == "flat":
        return torch.zeros_like(x + period)
    turn = 2 * math.pi / period
    cosine, sine = angle.cos() * turn, angle.sin() * turn
    return _PATTERNS[kind](x * cosine + y * sine + phase, y * cosine - x * sine + 1.7 * phase, period)


def _edge(wave: Tensor, period: Tensor) -> Tensor:
    """A sine sharpened so that it changes sign over about a pixel."""
    return (wave * (period / 3).clamp(min=1)).clamp(-1, 1)


def _stripes(u: Tensor, _: Tensor, period: Tensor) -> Tensor:
    return _edge(u.sin(), period)


def _checks(u: Tensor, v: Tensor, period: Tensor) -> Tensor:
    return _edge(u.sin(), period) * _edge(v.sin(), period)


def _dots(u: Tensor, v: Tensor, period: Tensor) -> Tensor:
    scale = period / (2 * math.pi)
    u, v = ((w.remainder(2 * math.pi) - math.pi) * scale for w in (u, v))
    return (2 * (0.35 * period - torch.hypot(u, v))).clamp(-1, 1)


def _noise(u: Tensor, v: Tensor, _: Tensor) -> Tensor:
    waves = torch.zeros_like(u)
    for number in range(5):
        direction, length = 2.4 * number, 0.7 + 0.13 * number  # 2.4 is the golden angle: no direction comes twice
        along = length * (math.cos(direction) * u + math.sin(direction) * v)
        waves = waves + (along + 1.9 * number * number).sin()
    return (waves / 2.2).clamp(-1, 1)


_PATTERNS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flat": lambda u, v, period: torch.zeros_like(u),
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "noise": _noise,
}
PATTERNS = tuple(_PATTERNS)
