"""CNTK in plain torch, on any device: all pairs of pixels of some pairs of images at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .cntk import Progress, Task, _Side


def kernel(one: _Side, two: _Side, task: Task, chunk: int | None, progress: Progress) -> Tensor:
    """(n1, n2) sums of Theta, of which only the upper triangle is filled in where both sides are the same."""
    from .cntk import ELEMENTS

    n1, n2, (height, width) = len(one.x), len(two.x), one.x.shape[2:]
    pairs = torch.triu_indices(n1, n2) if task.same else torch.cartesian_prod(torch.arange(n1), torch.arange(n2)).T
    pairs = pairs.reshape(2, -1).to(one.x.device)
    size = (height * width) ** (2 if task.pooled else 1)
    total, done = one.x.new_zeros(n1, n2), 0
    for rows, columns in zip(*(side.split(chunk or max(1, ELEMENTS // size)) for side in pairs), strict=True):
        total[rows, columns] = _some(one, two, task, rows, columns)
        done += len(rows)
        progress(done, pairs.shape[1])
    return total


def _some(one: _Side, two: _Side, task: Task, rows: Tensor, columns: Tensor) -> Tensor:
    """Theta of the last layer, summed, for some pairs: (pairs, H, W, H, W), or (pairs, H, W) on equal pixels."""
    from .cntk import boxed

    a, b, axes = one.x[rows], two.x[columns], (((1, 3), (2, 4)) if task.pooled else ((1,), (2,)))
    sigma = boxed(torch.einsum("pcij,pckl->pijkl" if task.pooled else "pcij,pcij->pij", a, b), task, axes)
    theta = sigma.clone()
    least = 8 * torch.finfo(a.dtype).eps  # what is as near to 1 as rounding counts as 1, as in the compiled step
    for layer in range(task.depth):
        qa, qb = one.q[rows, layer], two.q[columns, layer]
        root = (qa[:, :, :, None, None] * qb[:, None, None] if task.pooled else qa * qb).sqrt()
        c = torch.where(root > 0, sigma / root, 0.0).clamp(-1, 1)
        c = torch.where(c.abs() > 1 - least, c.sign(), c)
        angle = math.pi - torch.acos(c)
        sigma = root * ((1 - c) * (1 + c)).sqrt().add_(c * angle) / (math.pi * task.filter**2)
        theta = theta * angle / (math.pi * task.filter**2) + sigma
        if layer < task.depth - 1:
            sigma, theta = boxed(sigma, task, axes), boxed(theta, task, axes)
    return theta.flatten(1).sum(1)
