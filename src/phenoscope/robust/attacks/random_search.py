"""An attack without gradients: random changes of a window, kept where they help."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from .balls import Clip, normal, project, random_start, uniform
from .losses import margin
from .pgd import attacked, check, rows_at_once


def random_search(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 300,
    clip: Clip = None,
    generator: torch.Generator | int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Adversarial examples found by random search, after Andriushchenko, Croce, Flammarion and Hein (ECCV 2020).

    In every step each example gets another perturbation in one random window, whose share of the example falls from a
    half to one element, and keeps it if that raises the margin loss. For the inf-norm the window takes `-eps` or `eps`,
    the same all over it; for the others it gets Gaussian noise and the whole is projected onto the ball. It sees scores
    only, so what it breaks and gradient attacks do not is a sign of masked gradients.

    Args:
        model: from a batch to scores (N, C). A module is left as it was.
        x: examples (N, ...); of four axes, the last two are those of an image and windows are squares.
        y: their labels (N,).
        eps: radius of the ball.
        norm: "inf", "2" or "1".
        steps: how many, each one forward pass.
        clip: the range of the data, if it has one.
        generator: what draws.
        chunk: examples at a time.

    Returns:
        Adversarial examples (N, ...).

    Raises:
        InputError: as `pgd` does, or less than 1 step.
    """
    check(x, y, eps=eps, norm=norm, clip=clip)
    if steps < 1:
        raise InputError(f"a random search takes at least 1 step, not {steps}")
    draws = None if generator is None else seeded(generator, x.device)
    parts, size = [], chunk or rows_at_once(x)
    with attacked(model), torch.no_grad():
        for rows, labels in zip(x.split(size), y.split(size), strict=True):
            delta = random_start(rows, eps=eps, norm=norm, generator=draws)
            if norm == "inf":
                delta = eps * delta.sign()
            best = rows + delta if clip is None else (rows + delta).clamp(*clip)
            height = margin(model(best), labels)
            for step in range(steps):
                share = 0.5 * (1 - step / steps) ** 2
                tried = _changed(best - rows, share, eps=eps, norm=norm, generator=draws)
                at = rows + tried if clip is None else (rows + tried).clamp(*clip)
                now = margin(model(at), labels)
                better = now > height
                best = torch.where(better.reshape(-1, *[1] * (rows.ndim - 1)), at, best)
                height = torch.where(better, now, height)
            parts.append(best)
    return torch.cat(parts)


def _changed(delta: Tensor, share: float, *, eps: float, norm: str, generator: torch.Generator | None) -> Tensor:
    """Another perturbation: new in one window of each example."""
    window = _window(delta, share, generator)
    if norm == "inf":
        shape = (*delta.shape[:2], *[1] * (delta.ndim - 2)) if delta.ndim > 2 else (len(delta), 1)
        value = torch.where(uniform(delta.new_empty(shape), generator) < 0.5, -eps, eps)
        return torch.where(window, value, delta)
    noise = window * normal(delta, generator)
    order = 2 if norm == "2" else 1
    noise = noise / noise.flatten(1).norm(p=order, dim=1).clamp_min(1e-12).reshape(-1, *[1] * (delta.ndim - 1))
    return project(delta + eps * noise, eps=eps, norm=norm)


def _window(delta: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """For each example a random place: a square of an image, otherwise a run of the elements in order."""
    n = len(delta)
    if delta.ndim == 4:
        height, width = delta.shape[2:]
        side = max(1, round(math.sqrt(share * height * width)))
        inside = [_run(n, size, min(side, size), delta, generator) for size in (height, width)]
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    size = delta[0].numel()
    return _run(n, size, max(1, round(share * size)), delta, generator).reshape(delta.shape)


def _run(n: int, size: int, length: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """`length` places in a row of `size`, from a random first one, for each of `n`."""
    first = (uniform(like.new_empty(n, 1), generator) * (size - length + 1)).floor()
    place = torch.arange(size, device=like.device)
    return (place >= first) & (place < first + length)
