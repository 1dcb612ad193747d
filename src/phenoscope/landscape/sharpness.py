"""How sharp a minimum is."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.parameters import flatten, parameter_dict, unflatten
from ..core.random import seeded
from ..data.batches import Data, batches
from ..train.outputs import placed
from .products import Loss, loss_gradient
from .spectrum import top_eigenvalues


def sharpness(
    model: nn.Module,
    loss_fn: Loss,
    data: Data,
    *,
    radius: float | None = None,
    steps: int = 20,
    generator: torch.Generator | int | None = None,
    chunk: int = 1024,
) -> Tensor:
    """The largest eigenvalue of the Hessian or, with a radius, by how much the loss can rise in a ball.

    With `radius` it is max L(w + e) - L(w) over |e| <= radius, the Euclidean norm over all parameters (after Keskar,
    Mudigere, Nocedal, Smelyanskiy and Tang, ICLR 2017, who take a box, and Foret, Kleiner, Mobahi and Neyshabur, ICLR
    2021), as a search by projected steps along the gradient finds it: a bound from below. Where the loss is a
    quadratic at its minimum, that is half the largest eigenvalue times the square of the radius.

    Args:
        model: the network; left as it was found, and used in the mode in which it is.
        loss_fn: from outputs and labels to their mean loss.
        data: a pair of tensors, or a loader that can be gone through again and again.
        radius: of the ball; `None` asks for the eigenvalue.
        steps: of the search.
        generator: what it begins with is drawn from.
        chunk: examples at a time.

    Returns:
        One number as a tensor, at least 0 with a radius.

    Raises:
        InputError: a radius that is not positive, no steps, or what `top_eigenvalues` refuses.
    """
    if radius is None:
        return top_eigenvalues(model, loss_fn, data, generator=generator, chunk=chunk)[0]
    if radius <= 0 or steps < 1:
        raise InputError(f"radius must be positive and steps at least 1, not {radius} and {steps}")
    moved = copy.deepcopy(model)
    center = parameter_dict(model)
    start = flatten(center)
    draw = seeded(generator)
    offset = torch.randn(start.shape, generator=draw, device=draw.device).to(start)
    offset *= radius / offset.norm()
    before = best = _loss(model, loss_fn, data, chunk)
    for _ in range(steps):
        _place(moved, unflatten(start + offset, center))
        best = torch.maximum(best, _loss(moved, loss_fn, data, chunk))
        slope = flatten(loss_gradient(moved, loss_fn, data, chunk=chunk))
        size = slope.norm()
        if not bool(size > 0):
            break
        offset = offset + slope * (radius / size)
        offset *= radius / offset.norm().clamp(min=radius)
    _place(moved, unflatten(start + offset, center))
    return (torch.maximum(best, _loss(moved, loss_fn, data, chunk)) - before).to(start)


@torch.no_grad()
def _place(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])


@torch.no_grad()
def _loss(model: nn.Module, loss_fn: Loss, data: Data, chunk: int) -> Tensor:
    """In double precision: what is wanted is a small difference."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    total, count = torch.zeros((), dtype=torch.float64), 0
    for x, y in batches(data, chunk):
        x, y = placed(x, y, model)
        total += len(x) * loss_fn(model(x), y).double().cpu()
        count += len(x)
    for buffer, value in buffers:
        buffer.copy_(value)
    return total / max(count, 1)
