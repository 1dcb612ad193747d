"""Run a network of positive numbers with every operation that is not linear on them left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# ReLU, leaky ReLU, ELU and SELU are linear on positive numbers and stay
_BENT = {
    "tanh", "sigmoid", "logsigmoid", "gelu", "silu", "mish", "softplus", "softsign", "tanhshrink", "hardtanh", "relu6",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink",
}  # fmt: skip


class Positive(TorchFunctionMode):
    """A context in which those operations are replaced: activations by the identity, norms by their scale and shift.

    Attributes:
        linearized: the names of what was replaced, batch norms apart: they are linear with running statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linearized: dict[str, None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "").removesuffix("_")
        if name in _BENT:
            self.linearized[name] = None
            return args[0] if args else given["input"]
        if func in _NORMS:
            if func is not functional.batch_norm:
                self.linearized[name] = None
            return _NORMS[func](*args, **given)
        return func(*args, **given)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Every constant of the affine map by its size, the shift by the running mean too; fresh ones if there are none."""
    spread = input.new_ones(input.shape[1]) if running_var is None else running_var
    scale = (spread + eps).rsqrt() if weight is None else weight * (spread + eps).rsqrt()
    shift = input.new_zeros(input.shape[1]) if running_mean is None else scale * running_mean
    return _along(input, scale, shift if bias is None else shift + bias)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return _along(input, weight, bias)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    **_: Any,
) -> Tensor:
    return _along(input, weight, bias)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    scaled = input if weight is None else input * weight
    return scaled if bias is None else scaled + bias


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    return input if weight is None else input * weight


def _along(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Scale and shift by channel."""
    rest = (1,) * (x.ndim - 2)
    scaled = x if scale is None else x * scale.reshape(-1, *rest)
    return scaled if shift is None else scaled + shift.reshape(-1, *rest)


_NORMS: dict[Any, Callable[..., Tensor]] = {
    functional.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
    functional.group_norm: _group_norm,
    functional.layer_norm: _layer_norm,
    functional.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
}
