"""The knobs that the reference networks share, read and checked."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from ..core.errors import InputError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
Activation = str | Callable[[], nn.Module]
"""A name of `ACTIVATIONS`, or a module class."""


def activation_of(activation: Activation) -> nn.Module:
    """A new module of this activation."""
    if callable(activation):
        module = activation()
        if not isinstance(module, nn.Module):
            raise InputError(f"activation must make an nn.Module, not a {type(module).__name__}: pass a module class")
        return module
    if activation not in ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)} or a module class, not {activation!r}")
    return ACTIVATIONS[activation]()


def norm_of(norm: str | None, channels: int, dimensions: int) -> nn.Module | None:
    """A new normalization of this many channels: of vectors (0), signals (1) or images (2)."""
    if norm is None:
        return None
    if norm == "batch":
        return (nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm1d)(channels)
    if norm == "layer":
        return nn.GroupNorm(1, channels) if dimensions else nn.LayerNorm(channels)
    raise InputError(f'norm must be "batch", "layer" or None, not {norm!r}')


def widths_of(width: Sequence[int] | int, depth: int | None, default_depth: int) -> tuple[int, ...]:
    """The width of every hidden layer."""
    if isinstance(width, int):
        widths = (width,) * (default_depth if depth is None else depth)
    else:
        widths = tuple(width)
        if depth is not None and depth != len(widths):
            raise InputError(f"depth={depth} contradicts the {len(widths)} widths {widths}: give one of the two")
    if any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths) or (depth is not None and depth < 0):
        raise InputError(f"widths must be whole numbers of at least 1 and depth at least 0, not {width} and {depth}")
    return widths


def each(name: str, values: Sequence[int] | int, count: int) -> tuple[int, ...]:
    """One value a layer, from one for all or one for each."""
    given = (values,) * count if isinstance(values, int) else tuple(values)
    if len(given) != count or any(value < 1 for value in given):
        raise InputError(f"{name} must be a number of at least 1, or {count} of them, one a convolution; not {values}")
    return given


def check_shape(shape: Sequence[int], num_classes: int | None, dimensions: int | None = None) -> tuple[int, ...]:
    """The shape of one input: channels and `dimensions` sides; any shape where that is `None`."""
    wanted = {None: "(features, ...)", 1: "(channels, length)", 2: "(channels, height, width)"}[dimensions]
    sizes = tuple(int(size) for size in shape)
    if not sizes or min(sizes) < 1 or (dimensions is not None and len(sizes) != dimensions + 1):
        raise InputError(f"shape must be {wanted} of one input, without the batch, not {tuple(shape)}")
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes must be at least 1, not {num_classes}")
    return sizes


def check_dropout(dropout: float) -> None:
    """A share."""
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be a share, at least 0 and below 1, not {dropout}")


def check_width(width: float) -> None:
    """A factor on published widths."""
    if not 0 < width < math.inf:
        raise InputError(f"width must be a positive number, not {width}")


def scaled(channels: int, width: float) -> int:
    """`width` times the channels, rounded, and at least one."""
    return max(1, round(channels * width))


Layers = OrderedDict[str, nn.Module]
