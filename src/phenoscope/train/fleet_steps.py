"""One step of a fleet: losses, gradients, updates, for some of the members at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .program import Program
from .threads import Map
from .updates import Rate, Recipe, State, shaped

# On CPU the activations of members that are trained together should stay in the caches; many more together only save
# the overhead of calls. Parts of 2 to 5 MB were best where it was measured. Where weights and activations of eight
# members are large, calls cost little and memory much (beyond 32 MB every tensor is fetched from the system anew):
# fewer go together then, in the end each alone, which is a plain loop.
_BYTES_AT_ONCE = 5 * 2**20
_MEMBERS_AT_LEAST = 8
_BYTES_AT_MOST = 16 * 2**20

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
        # .data: views that count their changes for themselves, because parts change theirs at the same time
        self.parameters = {
            name: tensor.data[start:end].data.requires_grad_(name in trained) for name, tensor in parameters.items()
        }
        self.buffers = {name: tensor.data[start:end].data for name, tensor in buffers.items()}
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


def in_parts(whole: Part, bytes_each: int, threads: int) -> list[Part]:
    """As few equal parts as keep the activations of each small on CPU, as many for each thread; one part elsewhere.

    `bytes_each` is what the activations of a member take, 0 where that is not known.
    """
    members = whole.end - whole.start
    if next(iter(whole.parameters.values())).device.type != "cpu":
        return [whole]
    at_once = max(_MEMBERS_AT_LEAST, _BYTES_AT_ONCE // max(bytes_each, 1))
    if bytes_each:
        weights = sum(tensor[0].numel() * tensor.element_size() for tensor in whole.parameters.values())
        at_once = max(1, min(at_once, _BYTES_AT_MOST // (weights + bytes_each)))
    count = min(members, threads * -(-members // (at_once * threads)))
    edges = [members * index // count for index in range(count + 1)]
    return [Part(*whole.whole, start, end) for start, end in itertools.pairwise(edges)]


class Steps:
    """The steps of a fleet.

    Members are trained in parts; a part for which memory runs out is halved, for good, and its step begins again.
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

    def __call__(self, batch: Batch, factor: float, across: Map = map) -> Tensor:
        """Losses (members,) before the step; `across` maps over the parts."""
        done = [each for some in across(lambda part: self._stepped(part, batch, factor), self.parts) for each in some]
        self.parts = [part for part, _ in done]
        return torch.cat([losses for _, losses in done])

    def _stepped(self, part: Part, batch: Batch, factor: float) -> list[tuple[Part, Tensor]]:
        result = self._tried(part, batch)
        if result is None:
            return [each for half in part.halves() for each in self._stepped(half, batch, factor)]
        losses, gradients = result
        part.update(self.recipe, gradients, factor)
        return [(part, losses)]

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
