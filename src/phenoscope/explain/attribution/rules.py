"""The backward pass with another slope at every nonlinearity.

A network is run twice, at the baselines and at the inputs. Linear operations keep their own derivative; an elementwise
nonlinearity, or a pooling maximum, gets a slope that a rule makes of what happened in both runs. Operations are caught
where torch dispatches them, so that functional calls, reused modules and in-place layers are treated like modules; one
that is neither linear nor ruled is refused by its name. (After Ancona, Ceolini, Oztireli, Gross, "Towards better
understanding of gradient-based attribution methods for Deep Neural Networks", ICLR 2018, proposition 2.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...core.errors import InputError
from .operations import ELEMENTWISE, FACTS, LINEAR, POOLS, PRODUCTS, QUOTIENTS

Slope = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
NEAR = 1e-7  # below it a difference is no denominator


def ruled_multipliers(
    model: nn.Module, x: Tensor, x0: Tensor, score: Callable[[Tensor], Tensor], slope: Slope
) -> tuple[Tensor, Tensor]:
    """Multipliers of the inputs, by the chain rule with ruled slopes.

    Args:
        model: in evaluation mode.
        x: inputs (n, ...).
        x0: baselines (n, ...).
        score: linear, from the model's outputs to (n,).
        slope: `slope(f, z, z0)` of an elementwise function f at the input's z and the baseline's z0.

    Returns:
        Multipliers (n, ...) and the change of the score (n,).

    Raises:
        InputError: an operation that has no rule.
    """
    # Only what comes from the input may require gradients: that is how dependence on it is told.
    fixed = {name: value.detach() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    leaf0, leaf = x0.detach().requires_grad_(), x.detach().requires_grad_()
    noted = _Noting()
    with noted:
        before = torch.func.functional_call(model, fixed, (leaf0.clone(),))
    ruled = _Ruling(noted.seen, slope)
    with ruled:
        outputs = torch.func.functional_call(model, fixed, (leaf.clone(),))
    if ruled.left:
        raise InputError(_OTHER_WAY)
    after = score(outputs)
    change = (after - score(before.detach())).detach()
    if not after.requires_grad:
        return torch.zeros_like(leaf), change
    (multipliers,) = torch.autograd.grad(after.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if multipliers is None else multipliers, change


def rescale(f: Callable[[Tensor], Tensor], z: Tensor, z0: Tensor) -> Tensor:
    """The slope (f(z) - f(z0)) / (z - z0); where both agree, the derivative at z0."""
    moved = z - z0
    near = moved.abs() < NEAR
    slope = (f(z) - f(z0)) / torch.where(near, torch.ones_like(moved), moved)
    if not near.any():
        return slope
    leaf = z0.detach().requires_grad_()
    with torch.enable_grad():
        (derivative,) = torch.autograd.grad(f(leaf).sum(), leaf)
    return torch.where(near, derivative, slope)


def winning(f: Callable[..., Any], z: Tensor, z0: Tensor, axes: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """How a maximum over windows of the last `axes` axes passes its change on.

    All of it goes to the unit that wins in the run where the maximum is larger. That unit moved at least as far as the
    maximum did, so its slope lies between 0 and 1 and nothing of the change is lost.

    Returns:
        The slopes of the windows, and a function that takes the winning units' values out of a tensor like `z`.
    """
    (y, where), (y0, where0) = f(z, return_indices=True), f(z0, return_indices=True)
    winners = torch.where(y >= y0, where, where0)

    def taken(values: Tensor) -> Tensor:
        return values.flatten(-axes).gather(-1, winners.flatten(-axes)).reshape(winners.shape)

    moved = taken(z - z0)
    still = moved.abs() < NEAR
    one = torch.ones_like(y)
    return torch.where(still, one, (y - y0) / torch.where(still, one, moved)), taken


class _Watching(TorchFunctionMode):
    """Sorts the operations on what depends on the input: linear ones run as they are, nonlinear ones go to `ruled`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        dependent = _dependent((args, kwargs))
        if not dependent:
            return func(*args, **kwargs)
        raw = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        in_place = raw.endswith("_") and not raw.endswith("__")
        name = raw[:-1] if in_place else raw
        by_first = dependent == 1 == _dependent(args[:1])
        product = name in PRODUCTS and dependent == 1 and not _batch_statistics(name, args, kwargs)
        if name in FACTS or name in LINEAR or product or (name in QUOTIENTS and by_first):
            return func(*args, **kwargs)
        if by_first and (name in ELEMENTWISE or (name in POOLS and not kwargs.pop("return_indices", False))):
            in_place = bool(kwargs.pop("inplace", in_place))
            call = getattr(functional, name) if name in POOLS else func
            rest = args[1:]

            def f(z: Tensor, **more: Any) -> Any:
                return call(z.clone(), *rest, **kwargs, **more)  # on a copy, which an in-place function may overwrite

            out = self.ruled(name, f, args[0])
            return args[0].copy_(out) if in_place else out
        raise InputError(
            f"no rule for {name.strip('_')}() of what depends on the input: the rules know linear operations, "
            "elementwise nonlinearities and max pooling; a product of activations, softmax or layer norm has none"
        )

    def ruled(self, name: str, f: Callable[..., Any], z: Tensor) -> Tensor:
        raise NotImplementedError


class _Noting(_Watching):
    """The run at the baselines: what enters every nonlinearity, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor]] = []

    def ruled(self, name: str, f: Callable[..., Any], z: Tensor) -> Tensor:
        self.seen.append((name, z.detach().clone()))
        return f(z.detach()).requires_grad_().clone()  # no graph goes through, yet it still depends on the input


class _Ruling(_Watching):
    """The run at the inputs, with ruled slopes."""

    def __init__(self, seen: list[tuple[str, Tensor]], slope: Slope) -> None:
        super().__init__()
        self.left = seen[::-1]
        self.slope = slope

    def ruled(self, name: str, f: Callable[..., Any], z: Tensor) -> Tensor:
        if not self.left or self.left[-1][0] != name or self.left[-1][1].shape != z.shape:
            raise InputError(_OTHER_WAY)
        _, z0 = self.left.pop()
        at = z.detach()
        if name in POOLS:
            slopes, taken = winning(f, at, z0, POOLS[name])
            return f(at) + slopes * taken(z - at)
        return f(at) + self.slope(f, at, z0) * (z - at)


def _dependent(values: Any) -> int:
    """How many tensors among (nested) arguments depend on the input."""
    if isinstance(values, Tensor):
        return int(values.requires_grad)
    if isinstance(values, dict):
        return sum(map(_dependent, values.values()))
    return sum(map(_dependent, values)) if isinstance(values, (tuple, list)) else 0


def _batch_statistics(name: str, args: Any, kwargs: Any) -> bool:
    return name == "batch_norm" and bool(kwargs.get("training", args[5] if len(args) > 5 else False))


_OTHER_WAY = "the network takes another way at the baseline than at the input; no rule fits"
