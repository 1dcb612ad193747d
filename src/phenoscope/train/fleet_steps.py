"""One step of a fleet: losses, gradients, updates, for some of the members at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .program import Program
from .updates import Rate, Recipe, State, shaped

Batch = Callable[[int, int], tuple[Tensor, Tensor]]
Losses = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]


class Part:
    """Members `start` to `end` of a fleet in training: views of its tensors, and their own state of the optimizer."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        rates: Mapping[str, Rate],
        decays: Mapping[str, Rate],
        trained: frozenset[str],
        start: int,
        end: int,
    ) -> None:
        self.whole = (parameters, buffers, masks, rates, decays, trained)
        self.start, self.end = start, end
        self.parameters = {
            name: tensor[start:end].detach().requires_grad_(name in trained) for name, tensor in parameters.items()
        }
        self.buffers = {name: tensor[start:end] for name, tensor in buffers.items()}
        self.masks = {name: mask[start:end] for name, mask in masks.items()}
        self.rates = {name: self._own(rates[name], name) for name in trained}
        self.decays = {name: self._own(decays[name], name) for name in trained}
        self.names = [name for name in self.parameters if name in trained]
        self.state: dict[str, State] = {name: {} for name in self.names}
        self.updates: dict[str, int] = dict.fromkeys(self.names, 0)

    def _own(self, rate: Rate, name: str) -> Rate:
        return shaped(rate[self.start : self.end], self.parameters[name]) if isinstance(rate, Tensor) else rate

    def halves(self) -> tuple[Part, Part]:
        """The same members in two parts."""
        middle = (self.start + self.end) // 2
        parts = Part(*self.whole, self.start, middle), Part(*self.whole, middle, self.end)
        for part in parts:
            own = slice(part.start - self.start, part.end - self.start)
            part.state = {name: {k: v[own] for k, v in state.items()} for name, state in self.state.items()}
            part.updates = dict(self.updates)
        return parts

    def gradients(self, losses: Losses, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Losses (members of the part,), and the gradient of each trained parameter."""
        values = losses({**self.parameters, **self.buffers}, x, y)
        wanted = [self.parameters[name] for name in self.names]
        return values.detach(), torch.autograd.grad(values.sum(), wanted, allow_unused=True)

    @torch.no_grad()
    def update(self, recipe: Recipe, gradients: tuple[Tensor | None, ...], factor: float) -> None:
        """One step of the optimizer, masked."""
        for name, gradient in zip(self.names, gradients, strict=True):
            if gradient is None:
                continue
            parameter, mask = self.parameters[name], self.masks.get(name)
            if mask is not None:
                gradient = gradient * mask
            self.updates[name] += 1
            settings, rate = recipe.settings[name], self.rates[name] * factor
            recipe.update(parameter, gradient, self.state[name], settings, rate, self.decays[name], self.updates[name])
            if mask is not None:
                parameter.mul_(mask)


class Steps:
    """The steps of a fleet.

    Members are trained in parts of `size`, one part after another; a part for which memory runs out is halved, for
    good, and its step begins again.
    """

    def __init__(
        self,
        program: Program,
        recipe: Recipe,
        parts: list[Part],
        loss_fn: Callable[..., Tensor],
        objective: Callable[..., Tensor] | None,
    ) -> None:
        self.recipe, self.parts = recipe, parts
        if objective is None:
            self.losses: Losses = lambda tensors, x, y: program.losses(tensors, x, y, loss_fn)
        else:
            self.losses = lambda tensors, x, y: program.objectives(tensors, x, y, objective)

    def __call__(self, batch: Batch, factor: float) -> Tensor:
        """Losses (members,) before the step."""
        found = []
        left = self.parts[::-1]
        done: list[Part] = []
        while left:
            part = left.pop()
            result = self._tried(part, batch)
            if result is None:
                left.extend(part.halves()[::-1])
                continue
            losses, gradients = result
            part.update(self.recipe, gradients, factor)
            del gradients, result
            found.append(losses)
            done.append(part)
        self.parts = done
        return torch.cat(found) if len(found) > 1 else found[0]

    def _tried(self, part: Part, batch: Batch) -> Any:
        """Losses and gradients of a part; `None` if memory ran out and the part can be halved."""
        splits = part.end - part.start > 1
        before = {k: v.clone() for k, v in part.buffers.items()} if splits else {}
        try:
            return part.gradients(self.losses, *batch(part.start, part.end))
        except torch.OutOfMemoryError:
            if not splits:
                raise
        for name, value in before.items():
            part.buffers[name].copy_(value)
        torch.cuda.empty_cache()
        return None
