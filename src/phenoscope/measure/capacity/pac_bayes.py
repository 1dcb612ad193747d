"""How much noise on its weights a network bears: the searches behind the PAC-Bayes and sharpness measures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...core.parameters import call
from ...core.random import child_seeds, seeded
from ...train.outputs import in_mode
from ...train.program import Program

EPS = 1e-3  # the part of a relative perturbation that a weight of zero gets too
_RANGE = (1e-5, 1.0)
_BYTES = 256 * 2**20  # of drawn perturbations held at once
_ACTIVATION_BYTES = 16 * 2**20

Pair = tuple[Tensor, Tensor]


def noise_scale(
    model: nn.Module,
    data: Pair,
    *,
    relative: bool,
    drop: float,
    draws: int,
    search: int,
    generator: torch.Generator | int | None,
) -> float:
    """The largest standard deviation of weight noise that costs at most `drop` of training accuracy on average.

    The noise is N(0, sigma^2) on every parameter, or with `relative` N(0, sigma^2 w_i^2 + eps^2). It is found by
    bisection of log sigma over [1e-5, 1]; all its steps see the same draws, only scaled.

    Returns:
        sigma; NaN where 1 is borne or 1e-5 is not.
    """
    x, y = data
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    drawn = _Draws(parameters, child_seeds(generator, draws))
    right = _Right(model, x, y)
    before = right.share({name: value[None] for name, value in parameters.items()})

    def too_much(sigma: float) -> bool:
        spread = {
            name: ((sigma * value).square() + EPS**2).sqrt() if relative else sigma
            for name, value in parameters.items()
        }
        total = 0.0
        for noise in drawn:
            total += right.share({name: value + noise[name] * spread[name] for name, value in parameters.items()})
        return before - total / draws > drop

    return _largest(too_much, search)


def sharpness_radius(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Pair,
    *,
    relative: bool,
    drop: float,
    ascent: int,
    search: int,
) -> float:
    """The largest radius within which no perturbation that was found costs more than `drop` of training accuracy.

    The ball is |u_i| <= alpha, or with `relative` |u_i| <= alpha (|w_i| + eps). The worst u is sought by projected
    ascent of the loss along the signs of its gradient, from u = 0, every step 2.5 / ascent of the radius; bisection as
    in `noise_scale`. An ascent ends as soon as it has found a u that costs too much.

    Returns:
        alpha; NaN where 1 is borne or 1e-5 is not.
    """
    x, y = data
    network = copy.deepcopy(model).eval()
    network.requires_grad_()
    own = list(network.parameters())
    start = [parameter.detach().clone() for parameter in own]
    size = max(1, _ACTIVATION_BYTES // max(1, Program(network).activation_bytes(x[:1])))
    parts = list(zip(x.split(size), y.split(size), strict=True))
    needed = _correct(network, parts) - drop * len(x)

    def too_much(alpha: float) -> bool:
        radii = [alpha * (value.abs() + EPS) if relative else torch.full_like(value, alpha) for value in start]
        with torch.no_grad():
            for parameter, value in zip(own, start, strict=True):
                parameter.copy_(value)
        for _ in range(ascent):
            correct, slopes = _pass(network, own, loss_fn, parts)
            if correct < needed:
                return True
            with torch.no_grad():
                for parameter, value, radius, slope in zip(own, start, radii, slopes, strict=True):
                    if slope is not None:
                        moved = parameter.addcmul(slope.sign(), radius, value=2.5 / ascent)
                        parameter.copy_(torch.minimum(torch.maximum(moved, value - radius), value + radius))
        return _correct(network, parts) < needed

    return _largest(too_much, search)


def _largest(too_much: Callable[[float], bool], search: int) -> float:
    low, high = _RANGE
    for _ in range(search):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if too_much(middle) else (middle, high)
    if (low == _RANGE[0] and too_much(low)) or (high == _RANGE[1] and not too_much(high)):
        return math.nan
    return low


def _pass(network: nn.Module, own: list[nn.Parameter], loss_fn: Any, parts: list[Pair]) -> tuple[int, list[Any]]:
    """How many examples are right, and the gradient of the summed loss."""
    correct = 0
    total: list[Tensor | None] = [None] * len(own)
    for x, y in parts:
        with torch.enable_grad():
            outputs = network(x)
            slopes = torch.autograd.grad(len(x) * loss_fn(outputs, y), own, allow_unused=True)
        correct += int((outputs.argmax(1) == y).sum())
        total = [_sum(old, new) for old, new in zip(total, slopes, strict=True)]
    return correct, total


def _sum(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    return new if old is None else old if new is None else old + new


def _correct(network: nn.Module, parts: list[Pair]) -> int:
    with torch.no_grad():
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in parts)


class _Draws:
    """Standard normal numbers for every parameter, some draws at a time; the same each time they are gone through."""

    def __init__(self, parameters: dict[str, Tensor], seeds: list[int]) -> None:
        self.parameters, self.seeds = parameters, seeds
        each = sum(value.numel() * value.element_size() for value in parameters.values())
        self.at_once = max(1, _BYTES // (2 * each))
        self.kept: dict[str, Tensor] | None = None

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.kept is None and len(self.seeds) <= self.at_once:
            self.kept = self._drawn(self.seeds)
        if self.kept is not None:
            yield self.kept
            return
        for first in range(0, len(self.seeds), self.at_once):
            yield self._drawn(self.seeds[first : first + self.at_once])

    def _drawn(self, seeds: list[int]) -> dict[str, Tensor]:
        each = []
        for seed in seeds:
            generator = seeded(seed)
            each.append({n: torch.randn(v.shape, generator=generator).to(v) for n, v in self.parameters.items()})
        return {name: torch.stack([one[name] for one in each]) for name in self.parameters}


class _Right:
    """The share of examples that a network gets right, summed over stacked parameters (draws, ...)."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.program, self.x, self.y = Program(model), x, y
        self.buffers = dict(model.named_buffers())
        self.activation = self.program.activation_bytes(x[:1])

    def share(self, parameters: dict[str, Tensor]) -> float:
        draws = len(next(iter(parameters.values())))
        if self.program.steps is None:  # a network that need not bear vmap: one draw after another
            tensors = [{name: value[draw] for name, value in parameters.items()} for draw in range(draws)]
            return sum(self._right(one, lambda own, x: call(self.program.network, own, x)) for one in tensors)
        stacked = parameters | {name: value.expand(draws, *value.shape) for name, value in self.buffers.items()}
        return self._right(stacked, lambda own, x: self.program.outputs(own, x.expand(draws, *x.shape)), draws)

    def _right(self, tensors: dict[str, Tensor], outputs: Callable[..., Tensor], draws: int = 1) -> float:
        size = max(1, _ACTIVATION_BYTES // max(1, draws * self.activation))
        correct = 0
        with in_mode(self.program.network, training=False), torch.no_grad():
            for x, y in zip(self.x.split(size), self.y.split(size), strict=True):
                correct += int((outputs(tensors, x).argmax(-1) == y).sum())
        return correct / len(self.y)
