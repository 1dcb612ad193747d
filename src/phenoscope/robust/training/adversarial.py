"""Training on attacked examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import child_seeds
from ...data.batches import Data
from ...train import Fit, fit
from ..attacks.balls import Clip
from ..attacks.pgd import pgd
from .trades import trades_loss


def adversarial_loss(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 10,
    step_size: float | None = None,
    clip: Clip = None,
    training: bool = False,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """The mean loss on examples that `pgd` found (Madry et al., ICLR 2018, eq. 1).

    `functools.partial(adversarial_loss, eps=...)` is an `objective` of `train.fit` and `train.fleet`; under
    `torch.func.vmap`, as in a fleet, `generator` must stay `None`.

    Args:
        model: from a batch to scores (N, C).
        x: examples (N, ...).
        y: their labels (N,).
        eps, norm, steps, step_size, clip, training, generator: as in `pgd`.
        loss_fn: from scores and labels to their mean loss; the attack raises it too.

    Returns:
        The loss, a scalar.
    """
    loss = "ce" if loss_fn is functional.cross_entropy else loss_fn
    x_adv = pgd(
        model, x, y, eps=eps, norm=norm, steps=steps, step_size=step_size, loss=loss, clip=clip, training=training,
        generator=generator, chunk=len(x),
    )  # fmt: skip
    return loss_fn(model(x_adv), y)


def adversarial_train(
    model: nn.Module,
    data: Data,
    *,
    eps: float,
    method: str = "at",
    beta: float = 6.0,
    norm: str = "inf",
    attack_steps: int = 10,
    step_size: float | None = None,
    clip: Clip = None,
    attack: Callable[..., Tensor] | None = None,
    generator: torch.Generator | int | None = None,
    **settings: Any,
) -> Fit:
    """Train a network in place so that it withstands attacks, and return what `train.fit` returns.

    Method "at" minimizes the loss on attacked examples (`adversarial_loss`), "trades" the loss on clean ones plus a
    divergence (`trades_loss`). The network is attacked in evaluation mode and trained in training mode. The order of
    the data is drawn as in `train.fit` with the same generator, apart from what the attack draws. For many networks at
    once give either loss to `train.fleet` as its `objective`.

    Args:
        model: from a batch to scores (N, C).
        data: as for `train.fit`.
        eps: radius of the ball.
        method: "at" or "trades".
        beta: weight of the divergence, with "trades".
        norm: "inf", "2" or "1".
        attack_steps, step_size: of the attack in every update; the step is `2.5 eps / attack_steps` by default.
        clip: the range of the data, as `Split.range`, if it has one.
        attack: with "at", another attack than `pgd`, with settings of its own: `attack(model, x, y, generator=...)`.
        generator: an integer, or what shuffles the data and seeds the attack.
        settings: of `train.fit`: `optimizer`, `steps` or `epochs`, `batch_size`, `schedule`, `watch` ...

    Raises:
        InputError: an unknown method, an `attack` with "trades", or as `train.fit` and `pgd` do.
    """
    if method not in ("at", "trades"):
        raise InputError(f"there is no method {method!r}; methods are 'at' and 'trades'")
    if attack is not None and method == "trades":
        raise InputError("trades finds its own worst neighbor: leave out attack=, or use method='at'")
    # children of a copy: the data order stays the one that `fit` draws from this generator
    copy = generator
    if isinstance(generator, torch.Generator):
        copy = torch.Generator(generator.device).set_state(generator.get_state())
    place = next(model.parameters()).device
    draws = torch.Generator(place).manual_seed(child_seeds(copy, 1)[0])

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        kept: dict[str, Any] = {"eps": eps, "norm": norm, "steps": attack_steps, "step_size": step_size, "clip": clip}
        if method == "trades":
            return trades_loss(model, x, y, beta=beta, generator=draws, **kept)
        if attack is None:
            return adversarial_loss(model, x, y, generator=draws, **kept)
        return functional.cross_entropy(model(attack(model, x, y, generator=draws)), y)

    return fit(model, data, objective=objective, generator=generator, **settings)
