"""What theory needs to know of an activation: the function, its derivative, where it has kinks, its closed forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError

Function = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """An activation as the formulas use it.

    Attributes:
        name: for messages.
        function: elementwise.
        derivative: elementwise; at a kink either side's value.
        kinks: where the function or its derivative jumps.
        slopes: of a function that is linear on either side of zero, its slopes below and above: such functions have
            closed forms (Cho and Saul, NeurIPS 2009).
        is_erf: whether it is the error function, which has them too (Williams, NeurIPS 1996).
    """

    name: str
    function: Function
    derivative: Function
    kinks: tuple[float, ...] = ()
    slopes: tuple[float, float] | None = None
    is_erf: bool = False


def activation(act: str | Function | nn.Module | type[nn.Module] | Activation) -> Activation:
    """An activation by name, or any elementwise function with its derivative by automatic differentiation.

    Args:
        act: one of "linear" or "identity", "relu", "leaky_relu", "abs", "erf", "tanh", "sigmoid", "hardtanh", "gelu",
            "silu", "softplus", "elu", "selu", "sin"; a module such as `nn.Tanh()`; or a function from tensors to
            tensors. An unknown function is taken to be smooth: integrals over one with kinks are less exact.

    Raises:
        InputError: an unknown name, or something that is no elementwise function.

    Examples:
        >>> activation("tanh").derivative(torch.zeros(1)).item()
        1.0
    """
    if isinstance(act, Activation):
        return act
    if isinstance(act, type):
        act = act()
    if isinstance(act, str):
        if act not in _KNOWN:
            raise InputError(f"there is no activation {act!r}; known are {', '.join(_KNOWN)}, or pass a function")
        return _KNOWN[act]
    if isinstance(act, nn.Module):
        return _of_module(act)
    if not callable(act):
        raise InputError(f"an activation is a name, a function or a module, not a {type(act).__name__}")
    function: Any = act
    return _FUNCTIONS.get(function) or _by_autograd(getattr(function, "__name__", repr(function)), function)


def _piecewise(name: str, below: float, above: float) -> Activation:
    return Activation(
        name,
        lambda x: torch.where(x < 0, below * x, above * x),
        lambda x: torch.where(x < 0, torch.full_like(x, below), torch.full_like(x, above)),
        kinks=() if below == above else (0.0,),
        slopes=(below, above),
    )


def _by_autograd(name: str, function: Function, kinks: tuple[float, ...] = ()) -> Activation:
    def derivative(x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            values = function(at)
            if not isinstance(values, Tensor) or values.shape != at.shape:
                raise InputError(f"activation {name} must give a tensor of the shape of its input")
            (slopes,) = torch.autograd.grad(values.sum(), at)
        return slopes

    def detached(x: Tensor) -> Tensor:
        with torch.no_grad():
            return function(x)

    return Activation(name, detached, derivative, kinks)


def _of_module(module: nn.Module) -> Activation:
    if isinstance(module, nn.LeakyReLU):
        return _piecewise("leaky_relu", module.negative_slope, 1.0)
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        kinks = (float(module.min_val), float(module.max_val))
        return _by_autograd(type(module).__name__.lower(), lambda x: functional.hardtanh(x, *kinks), kinks)
    for kind, name in _MODULES.items():
        if isinstance(module, kind):
            return _KNOWN[name]
    parameters: list[Any] = list(module.parameters())
    if parameters:
        raise InputError(f"{type(module).__name__} has parameters of its own: theory knows fixed activations only")
    return _by_autograd(type(module).__name__, module)


_KNOWN = {
    each.name: each
    for each in (
        _piecewise("linear", 1.0, 1.0),
        _piecewise("relu", 0.0, 1.0),
        _piecewise("leaky_relu", 0.01, 1.0),
        _piecewise("abs", -1.0, 1.0),
        Activation("erf", torch.erf, lambda x: torch.exp(-(x**2)) * (2 / torch.pi**0.5), is_erf=True),
        Activation("tanh", torch.tanh, lambda x: 1 - torch.tanh(x) ** 2),
        Activation("sigmoid", torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
        Activation("sin", torch.sin, torch.cos),
        _by_autograd("hardtanh", functional.hardtanh, (-1.0, 1.0)),
        _by_autograd("gelu", functional.gelu),
        _by_autograd("silu", functional.silu),
        _by_autograd("softplus", functional.softplus, (20.0,)),  # torch goes over to the identity there
        _by_autograd("elu", functional.elu, (0.0,)),
        _by_autograd("selu", functional.selu, (0.0,)),
    )
}
_KNOWN["identity"] = _KNOWN["linear"]
_FUNCTIONS: dict[Any, Activation] = {
    torch.relu: _KNOWN["relu"], functional.relu: _KNOWN["relu"], torch.tanh: _KNOWN["tanh"],
    functional.tanh: _KNOWN["tanh"], torch.erf: _KNOWN["erf"], torch.sigmoid: _KNOWN["sigmoid"],
    functional.sigmoid: _KNOWN["sigmoid"], torch.abs: _KNOWN["abs"], torch.sin: _KNOWN["sin"],
    functional.leaky_relu: _KNOWN["leaky_relu"], functional.hardtanh: _KNOWN["hardtanh"],
    functional.elu: _KNOWN["elu"], functional.selu: _KNOWN["selu"],
}  # fmt: skip
_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.Tanh: "tanh", nn.Identity: "linear", nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.SELU: "selu",
}  # fmt: skip
