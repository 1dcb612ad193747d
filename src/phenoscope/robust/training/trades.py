"""TRADES: accuracy plus a weighted distance of predictions to those at the worst neighbor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import seeded
from ..attacks.balls import Clip, normal
from ..attacks.pgd import ascend, attacked, check

_FIRST = 0.001  # spread of the first step: at x itself the divergence has no slope


def trades_loss(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    beta: float = 6.0,
    norm: str = "inf",
    steps: int = 10,
    step_size: float | None = None,
    clip: Clip = None,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """`mean CE(f(x), y) + beta mean KL(p(x) || p(x'))`, `x'` the worst neighbor (Zhang et al., ICML 2019, eq. 5).

    `x'` begins at `x + 0.001 N(0, I)` and goes up the same divergence, the prediction at `x` held fixed and a module in
    evaluation mode. In the loss the gradient flows through both predictions, in the mode that the model is in.

    `functools.partial(trades_loss, eps=..., beta=...)` is an `objective` of `train.fit` and `train.fleet`; under
    `torch.func.vmap`, as in a fleet, `generator` must stay `None`.

    Args:
        model: from a batch to scores (N, C).
        x: examples (N, ...).
        y: their labels (N,).
        eps: radius of the ball.
        beta: weight of the divergence, the reciprocal of the paper's lambda; the paper uses 1 to 10.
        norm: "inf", "2" or "1".
        steps: of the ascent.
        step_size: `2.5 eps / steps` by default.
        clip: the range of the data, if it has one.
        generator: what draws the first step.

    Returns:
        The loss, a scalar.

    Raises:
        InputError: a negative weight, or as `pgd` does.
    """
    if not beta >= 0:
        raise InputError(f"beta must be at least 0, not {beta}")
    x_adv = worst_neighbor(
        model, x, y, eps=eps, norm=norm, steps=steps, step_size=step_size, clip=clip, generator=generator
    )
    clean = model(x)
    return functional.cross_entropy(clean, y) + beta * divergence(clean, model(x_adv)).mean()


def worst_neighbor(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 10,
    step_size: float | None = None,
    clip: Clip = None,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """Where in the ball the prediction differs most from that at `x`, by their divergence; labels do not matter."""
    check(x, y, eps=eps, norm=norm, clip=clip)
    draws = None if generator is None else seeded(generator, x.device)
    with attacked(model):
        with torch.no_grad():
            clean = model(x)
        return ascend(
            model, x, clean, _FIRST * normal(x, draws), eps=eps, norm=norm, steps=steps, step_size=step_size,
            height=lambda outputs, clean: divergence(clean, outputs), clip=clip, chunk=len(x),
        )  # fmt: skip


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL divergence from softmax predictions to others, `sum p (log p - log q)`, in nats: scores (N, C) to (N,)."""
    log_p, log_q = first.log_softmax(1), second.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
