"""Scalar functions of one layer's outputs, put together from what a forward pass does to them one after the other."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...theory.gaussian.activations import Activation, activation

_OPERATORS = {
    operator.add: "add", operator.iadd: "add", operator.sub: "sub", operator.isub: "sub", operator.mul: "mul",
    operator.imul: "mul", operator.truediv: "div", operator.itruediv: "div", operator.neg: "neg", operator.pow: "pow",
    operator.ipow: "pow", operator.abs: "abs",
}  # fmt: skip
_ALIASES = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg", "absolute": "abs",
    "clip": "clamp", "arctan": "atan", "arcsinh": "asinh",
}  # fmt: skip
_NAMES = {
    "abs", "add", "asinh", "atan", "celu", "clamp", "clamp_max", "clamp_min", "cos", "cosh", "div", "elu", "erf",
    "erfc", "exp", "exp2", "expm1", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "log1p", "log_sigmoid", "logsigmoid", "mish", "mul", "neg", "pow", "relu", "relu6", "reciprocal", "rsub",
    "selu", "sigmoid", "sign", "silu", "sin", "sinc", "sinh", "softplus", "softshrink", "softsign", "sqrt",
    "square", "sub", "tanh", "tanhshrink", "threshold",
}  # fmt: skip
_MODULES = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh,
    nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
_KNOWN = {"relu", "tanh", "erf", "sigmoid", "abs", "sin", "silu", "gelu", "selu", "softplus", "elu"}


@dataclasses.dataclass(frozen=True, eq=False)
class Pointwise:
    """A function of the outputs u of one layer.

    Attributes:
        root: the layer's name.
        raw: the function, differentiable.
        slopes: below and above zero, where it is linear on either side.
        known: an activation that theory has by name, if the function is `gain` times that.
        gain: the number.
    """

    root: str
    raw: Callable[[Tensor], Tensor]
    slopes: tuple[float, float] | None = None
    known: Activation | None = None
    gain: float = 1.0

    @property
    def identity(self) -> bool:
        """Whether nothing has been done to u."""
        return self.slopes == (1.0, 1.0)

    def activation(self) -> Activation:
        """As theory takes it, without `gain` where it is a known one."""
        if self.slopes is not None:
            below, above = self.slopes
            if self.slopes == (0.0, 1.0):
                return activation("relu")
            return Activation(
                f"slopes {below:g} and {above:g}",
                lambda u: torch.where(u < 0, below * u, above * u),
                lambda u: torch.where(u < 0, torch.full_like(u, below), torch.full_like(u, above)),
                kinks=(0.0,),
                slopes=self.slopes,
            )
        return activation(self.raw) if self.known is None else self.known


def unchanged(root: str) -> Pointwise:
    """The outputs themselves."""
    return Pointwise(root, lambda u: u, (1.0, 1.0))


def is_pointwise_module(module: nn.Module) -> bool:
    """Whether it is one of torch's activations that act on every number by itself and have no parameters."""
    return isinstance(module, _MODULES)


def name_of(target: Any) -> str:
    """The name of a function or method that a forward pass calls, in one spelling for all that are the same."""
    if target in _OPERATORS:
        return _OPERATORS[target]
    name = (target if isinstance(target, str) else getattr(target, "__name__", repr(target))).strip("_")
    return _ALIASES.get(name, name)


def is_pointwise(name: str) -> bool:
    """Whether a function or method of this name acts on every number by itself."""
    return name in _NAMES


def after_module(inner: Pointwise, module: nn.Module) -> Pointwise:
    """An activation module after what there is."""
    act = activation(module)
    kinks = _kinks(module)
    if kinks and not act.kinks:
        act = dataclasses.replace(act, kinks=kinks)
    if getattr(module, "inplace", False):
        return _compose(inner, act, lambda u: module(u.clone()))
    return _compose(inner, act, module)


def after_call(
    name: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], inner: Sequence[Pointwise]
) -> Pointwise:
    """A function or method after what there is: in `args` and `kwargs`, `Pointwise` of one root stand for tensors."""
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    first = inner[0]
    slopes = [each.slopes for each in inner]
    plain = not kwargs and not any(isinstance(each, Tensor) for each in args)
    if plain and name == "neg":
        return _times(first, -1.0)
    if plain and name in ("mul", "div") and len(inner) == 1 and len(args) == 2:
        left, right = args
        if name == "mul":
            return _times(first, float(right if isinstance(left, Pointwise) else left))
        if isinstance(left, Pointwise):
            return _times(first, 1 / float(right))
    if plain and name in ("add", "sub") and len(inner) == 2 and all(each is not None for each in slopes):
        sign = 1.0 if name == "add" else -1.0
        (b1, a1), (b2, a2) = ((below, above) for below, above in slopes)  # type: ignore[misc]
        return _two_sided(first.root, b1 + sign * b2, a1 + sign * a2)
    module = _as_module(name, list(args[1:]), kwargs) if isinstance(args[0], Pointwise) and len(inner) == 1 else None
    if module is not None:
        return after_module(first, module) if isinstance(module, nn.Module) else _compose(first, module, None)

    def raw(u: Tensor) -> Tensor:
        values = [each.raw(u) if isinstance(each, Pointwise) else each for each in args]
        named = {key: each.raw(u) if isinstance(each, Pointwise) else each for key, each in kwargs.items()}
        if isinstance(target, str):
            return getattr(values[0], name)(*values[1:], **named)
        return target(*values, **named)

    return Pointwise(first.root, raw)


def _as_module(name: str, rest: list[Any], kwargs: Mapping[str, Any]) -> nn.Module | Activation | None:
    """What theory knows best of a function and its numbers."""
    if name in _KNOWN and not rest and not kwargs:
        return activation(name)
    if name in ("clamp", "clamp_min", "clamp_max"):
        keys = {"clamp": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}[name]
        limits = dict(zip(keys, rest, strict=False)) | dict(kwargs)
        low, high = limits.get("min"), limits.get("max")
        if low == 0 and high is None:
            return activation("relu")
        return nn.Hardtanh(-1e300 if low is None else low, 1e300 if high is None else high)
    kinds: dict[str, Callable[..., nn.Module]] = {
        "leaky_relu": nn.LeakyReLU, "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6, "elu": nn.ELU, "celu": nn.CELU,
        "softplus": nn.Softplus, "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "softshrink": nn.Softshrink,
        "hardshrink": nn.Hardshrink, "threshold": nn.Threshold,
    }  # fmt: skip
    return kinds[name](*rest, **kwargs) if name in kinds else None


def _kinks(module: nn.Module) -> tuple[float, ...]:
    if isinstance(module, (nn.ELU, nn.CELU)):
        return (0.0,)
    if isinstance(module, (nn.Hardswish, nn.Hardsigmoid)):
        return (-3.0, 3.0)
    if isinstance(module, (nn.Softshrink, nn.Hardshrink)):
        return (-module.lambd, module.lambd)
    if isinstance(module, nn.Softplus):
        return (module.threshold / module.beta,)
    return (module.threshold,) if isinstance(module, nn.Threshold) else ()


def _compose(inner: Pointwise, act: Activation, raw: Callable[[Tensor], Tensor] | None) -> Pointwise:
    if act.slopes is not None and inner.slopes is not None:
        (low, high), (below, above) = act.slopes, inner.slopes
        return _two_sided(inner.root, below * (high if below < 0 else low), above * (high if above > 0 else low))
    if inner.identity:
        return Pointwise(inner.root, raw or _differentiable(act), known=act)
    before, after = inner.raw, raw or _differentiable(act)
    return Pointwise(inner.root, lambda u: after(before(u)))


def _differentiable(act: Activation) -> Callable[[Tensor], Tensor]:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": functional.gelu, "silu": functional.silu, "softplus": functional.softplus,
        "elu": functional.elu, "selu": functional.selu,
    }  # fmt: skip
    return functions.get(act.name, act.function)


def _times(inner: Pointwise, factor: float) -> Pointwise:
    if inner.slopes is not None:
        return _two_sided(inner.root, factor * inner.slopes[0], factor * inner.slopes[1])
    before = inner.raw
    return dataclasses.replace(inner, raw=lambda u: factor * before(u), gain=factor * inner.gain)


def _two_sided(root: str, below: float, above: float) -> Pointwise:
    return Pointwise(root, lambda u: torch.where(u < 0, below * u, above * u), (below, above))
