"""How the members of a fleet compute: batched products where the network is known, else `torch.func.vmap`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from ..core.errors import InputError
from .outputs import in_mode
from .recurrent import plain_recurrence_
from .stacked import stack

# More members at a time are hardly faster, and an observer may go through a whole data set.
_OBSERVED_AT_ONCE = 16

Tensors = Mapping[str, Tensor]


class Program:
    """One network's architecture, computing with the tensors of many.

    Args:
        template: a network of the architecture; copied.
    """

    def __init__(self, template: nn.Module) -> None:
        self.network = plain_recurrence_(copy.deepcopy(template))
        self.steps = stack(self.network)

    def outputs(self, tensors: Tensors, x: Tensor) -> Tensor:
        """(members, batch, ...) of tensors (members, ...) and inputs (members, batch, ...)."""
        if self.steps is None:
            return vmap(lambda own, x: functional_call(self.network, own, (x,)), randomness="different")(
                dict(tensors), x
            )
        for step in self.steps:
            x = step(x, tensors)
        return x

    @torch.no_grad()
    def activation_bytes(self, x: Tensor) -> int:
        """What one member's inputs (batch, ...) and the outputs of its layers take."""
        found = [x.numel()]

        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append(output.numel() if isinstance(output, Tensor) else 0)

        leaves = [module for module in self.network.modules() if not any(module.children())]
        handles = [module.register_forward_hook(count) for module in leaves]
        try:
            with in_mode(self.network, training=False):
                self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        return sum(found) * x.element_size()

    def losses(self, tensors: Tensors, x: Tensor, y: Tensor, loss_fn: Callable[..., Tensor]) -> Tensor:
        """The mean loss of every member, (members,)."""
        return batched_loss(loss_fn)(self.outputs(tensors, x), y)

    def objectives(self, tensors: Tensors, x: Tensor, y: Tensor, objective: Callable[..., Tensor]) -> Tensor:
        """What `objective(model, x, y)` gives for every member, (members,)."""

        def one(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return objective(self.member(own), x, y)

        return vmap(one, randomness="different")(dict(tensors), x, y)

    def map(self, tensors: Tensors, observe: Callable[[Any], Any]) -> Tensor:
        """What `observe(model)` gives for every member, (members, ...), some members at a time."""

        def one(own: dict[str, Tensor]) -> Tensor:
            value = observe(self.member(own))
            if not isinstance(value, Tensor):
                raise InputError(
                    f"a batched observer gives a tensor, not a {type(value).__name__}: leave out batched=True if this "
                    "one needs numbers"
                )
            return value

        return vmap(one, randomness="different", chunk_size=_OBSERVED_AT_ONCE)(dict(tensors))

    def member(self, own: dict[str, Tensor]) -> Callable[..., Any]:
        """The network with these tensors."""
        return lambda *args, **settings: functional_call(self.network, own, args, settings)


def batched_loss(loss_fn: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A mean loss of outputs (members, batch, ...) and labels (members, batch, ...) by member."""

    def losses(outputs: Tensor, y: Tensor) -> Tensor:
        if loss_fn is functional.cross_entropy and outputs.ndim == 3 and y.shape == outputs.shape[:2]:
            return _CrossEntropy.apply(outputs, y)
        if loss_fn is functional.mse_loss and outputs.shape == y.shape:
            return (outputs - y).square().flatten(1).mean(1)
        return vmap(loss_fn, randomness="different")(outputs, y)

    return losses


class _CrossEntropy(torch.autograd.Function):
    """The mean cross-entropy of outputs (members, batch, classes) and classes (members, batch), by member.

    Many times as fast on CPU as torch's own where there are few classes: the softmax runs over examples that are
    neighbors in memory, and the backward pass works in place.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, y: Tensor) -> Tensor:
        logs = functional.log_softmax(outputs.transpose(1, 2).contiguous(), 1)
        ctx.save_for_backward(logs, y[:, None])
        return -logs.gather(1, y[:, None])[:, 0].mean(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logs, y = ctx.saved_tensors
        slopes = logs.exp()
        slopes.scatter_add_(1, y, slopes.new_full((), -1.0).expand_as(y))
        return slopes.mul_(gradients[0][:, None, None] / y.shape[2]).transpose(1, 2), None
