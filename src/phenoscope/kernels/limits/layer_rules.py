"""Which rule each layer type, and each function of a forward pass, has."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...models.attention import LinearAttention as AttentionModule
from ...models.ntk import NTKConv2d, NTKLinear
from .attention_rules import LinearAttention, ReLUAttention
from .conv_rules import Conv
from .dense_rules import Affine, Dropout, Linear, Normalize, embed
from .space_rules import Flatten, Mean, Permute, Pool, Select
from .state import Rule, State, lift


@dataclasses.dataclass(frozen=True)
class Laws:
    """What weights and biases are drawn from, for all layers; `None` is the law of the layer's own type.

    Attributes:
        sigma_w2: variance of a weight times fan-in.
        sigma_b2: variance of a bias.
        parametrization: "ntk" or "standard".
        width_multiplier: how many times wider hidden layers are than those whose learning rates are meant.
    """

    sigma_w2: float | None
    sigma_b2: float | None
    parametrization: Literal["ntk", "standard"]
    width_multiplier: float

    def affine(self, module: nn.Module, fan_in: int, *, on_data: bool) -> Affine:
        """Of a linear layer; torch draws weights and biases from U(-1, 1) / sqrt(fan_in)."""
        if isinstance(module, (NTKLinear, NTKConv2d)):
            weight = module.sigma_w2 if self.sigma_w2 is None else self.sigma_w2
            return Affine(float(weight), float(module.sigma_b2 if self.sigma_b2 is None else self.sigma_b2))
        weight = 1 / 3 if self.sigma_w2 is None else self.sigma_w2
        has_bias = getattr(module, "bias", None) is not None
        bias = 0.0
        if has_bias:
            vanishing = 1 / (3 * fan_in) if on_data else 0.0
            bias = vanishing if self.sigma_b2 is None else self.sigma_b2
        if self.parametrization == "ntk":
            return Affine(weight, bias)
        return Affine(weight, bias, fan_in / (1 if on_data else self.width_multiplier), has_bias)


@dataclasses.dataclass(frozen=True)
class Source:
    """The inputs themselves as a state.

    Attributes:
        axis: where their features are; `None` where another branch has them.
    """

    axis: int | None

    def __call__(self, x1: Tensor, x2: Tensor | None, beside: State | None, **settings: Any) -> State:
        axis = self.axis
        if beside is not None:
            axis = -1 if beside.last or not beside.space else 1
        assert axis is not None
        if not x1.is_floating_point() and x1.dtype != torch.bool and x1.dim() < 2:
            raise InputError("the inputs have no features: tokens go through an embedding or a one-hot code first")
        return lift(x1, x2, axis=axis, **settings)


@dataclasses.dataclass(frozen=True)
class Embed:
    """An embedding of whole numbers.

    Attributes:
        channels: size of a vector.
        variance: of its entries.
        unit: what equal tokens add to the ntk.
        ignored: the token whose vector is fixed at zero.
    """

    channels: int
    variance: float
    unit: float
    ignored: int | None

    def __call__(self, x1: Tensor, x2: Tensor | None, beside: State | None, **settings: Any) -> State:
        if x1.is_floating_point():
            raise InputError("an embedding takes whole numbers")
        kwargs = {"channels": self.channels, "variance": self.variance, "unit": self.unit, "ignored": self.ignored}
        return embed(x1, x2, **kwargs, **settings)  # type: ignore[arg-type]


Made = Rule | Source | Embed | None


def weighted(rule: Made) -> bool:
    """Whether a rule is of a layer whose random weights make its outputs Gaussian with mean zero."""
    return isinstance(rule, (Linear, Conv, LinearAttention, ReLUAttention, Embed))


def features_axis(rule: Made) -> int:
    """Where a layer expects the features of the inputs."""
    return 1 if isinstance(rule, Conv) else -1


def without_parameters(module: nn.Module) -> Callable[..., Tensor] | None:
    """A normalization as it is at the start, for inputs; `None` for any other layer."""
    if isinstance(module, nn.LayerNorm):
        return functools.partial(functional.layer_norm, normalized_shape=module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return functools.partial(functional.rms_norm, normalized_shape=module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return functools.partial(functional.group_norm, num_groups=module.num_groups, eps=module.eps)
    return None


def _linear(module: Any, laws: Laws, on_data: bool) -> Made:
    law = laws.affine(module, module.in_features, on_data=on_data)
    return Linear(law, module.in_features, module.out_features, type(module).__name__)


def _conv(module: Any, laws: Laws, on_data: bool) -> Made:
    if module.groups != 1:
        raise InputError(f"groups={module.groups} has no known limit: use groups=1")
    size = tuple(module.kernel_size)
    spans = [d * (k - 1) for d, k in zip(module.dilation, size, strict=True)]
    if module.padding == "same":
        padding = [(span // 2, span - span // 2) for span in spans]
    elif module.padding == "valid":
        padding = [(0, 0) for _ in spans]
    else:
        padding = [(p, p) for p in module.padding]
    law = laws.affine(module, module.in_channels * math.prod(size), on_data=on_data)
    stride, dilation = tuple(module.stride), tuple(module.dilation)
    sizes = module.in_channels, module.out_channels
    return Conv(law, *sizes, size, stride, dilation, tuple(padding), module.padding_mode)


def _attention(module: AttentionModule, laws: Laws, on_data: bool) -> Made:
    if laws.parametrization == "standard" and not isinstance(module.out, NTKLinear):
        raise InputError('its tangent kernel is known in the NTK parametrization only: use parametrization="ntk"')
    ntk = dataclasses.replace(laws, parametrization="ntk")
    parts = {name: ntk.affine(part, module.features, on_data=False) for name, part in module.named_children()}
    bias = parts["out"].bias
    if "query" not in parts:
        return ReLUAttention(parts["value"].weight * parts["out"].weight, bias, module.features)
    return LinearAttention(math.prod(part.weight for part in parts.values()), bias, module.features)


def _embedding(module: nn.Embedding, laws: Laws, on_data: bool) -> Made:
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise InputError("max_norm= and scale_grad_by_freq= have no known limit")
    variance = 1.0 if laws.sigma_w2 is None else laws.sigma_w2
    unit = variance if laws.parametrization == "ntk" else 1.0
    return Embed(module.embedding_dim, variance, unit, module.padding_idx)


def _each(value: Any, count: int) -> tuple[int, ...]:
    return (int(value),) * count if isinstance(value, int) else tuple(value)


def _pool(count: int) -> Callable[..., Made]:
    def made(
        kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Made:  # fmt: skip
        size = _each(kernel_size, count)
        step = size if stride is None or stride == () else _each(stride, count)
        return Pool(size, step, _each(padding, count), ceil_mode, count_include_pad, divisor_override)

    return made


def _adaptive(count: int) -> Callable[..., Made]:
    return lambda output_size: Pool(target=_optional(output_size, count))


def _optional(value: Any, count: int) -> tuple[int | None, ...]:
    return (value,) * count if value is None or isinstance(value, int) else tuple(value)


def _pool_module(count: int) -> Callable[..., Made]:
    def made(m: Any, laws: Laws, on_data: bool) -> Made:
        extra = {} if count == 1 else {"divisor_override": m.divisor_override}
        return _pool(count)(m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, **extra)

    return made


LAYERS: dict[type[nn.Module], Callable[..., Made]] = {
    nn.Linear: _linear,
    NTKLinear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    NTKConv2d: _conv,
    nn.Embedding: _embedding,
    AttentionModule: _attention,
    nn.Flatten: lambda m, laws, on_data: Flatten(m.start_dim, m.end_dim),
    nn.LayerNorm: lambda m, laws, on_data: Normalize(m.eps, len(m.normalized_shape), True),
    nn.GroupNorm: lambda m, laws, on_data: Normalize(m.eps, None, True),
    nn.RMSNorm: lambda m, laws, on_data: Normalize(_rms_eps(m.eps), len(m.normalized_shape), False),
    nn.Dropout: lambda m, laws, on_data: Dropout(1 - m.p),
    nn.AvgPool1d: _pool_module(1),
    nn.AvgPool2d: _pool_module(2),
    nn.AdaptiveAvgPool1d: lambda m, laws, on_data: _adaptive(1)(m.output_size),
    nn.AdaptiveAvgPool2d: lambda m, laws, on_data: _adaptive(2)(m.output_size),
}


def _rms_eps(eps: float | None) -> float:
    return torch.finfo(torch.float32).eps if eps is None else eps


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> Made:
    return Dropout(1 - p) if training and p else None


def _mean(dim: Any = None, keepdim: bool = False) -> Made:
    if dim is None:
        raise InputError("the mean over the whole batch has no limit: give the axes of space, dim=(2, 3)")
    return Mean((dim,) if isinstance(dim, int) else tuple(dim), keepdim)


def _squeeze(dim: Any = None) -> Made:
    if dim is None:
        raise InputError("squeeze without an axis may drop the batch's: give the axis")
    return Mean((dim,) if isinstance(dim, int) else tuple(dim), alone=True)


def _reshape(*shape: Any) -> Made:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if len(sizes) == 2 and sizes[1] == -1:
        return Flatten()
    if len(sizes) == 3 and sizes[2] == -1 and not isinstance(sizes[1], int):
        return Flatten(2)
    raise InputError("only (N, -1) and (N, channels, -1) are understood as a shape: use flatten")


def _permute(*order: Any) -> Made:
    return Permute(tuple(order[0] if len(order) == 1 and isinstance(order[0], (tuple, list)) else order))


def _select(index: Any) -> Made:
    chosen: list[int | None] = []
    for each in index if isinstance(index, tuple) else (index,):
        if each is Ellipsis or not (isinstance(each, int) or each == slice(None)):
            raise InputError("only single positions and whole axes can be taken out, as in x[:, 0]")
        chosen.append(each if isinstance(each, int) else None)
    if chosen[0] is not None:
        raise InputError("takes one example out of the batch")
    return Select(tuple(chosen))


FUNCTIONS: dict[str, Callable[..., Made]] = {
    "flatten": lambda start_dim=0, end_dim=-1: Flatten(start_dim, end_dim),
    "reshape": _reshape,
    "view": _reshape,
    "transpose": lambda dim0, dim1: Permute(None, (dim0, dim1)),
    "swapaxes": lambda axis0, axis1: Permute(None, (axis0, axis1)),
    "permute": _permute,
    "mean": _mean,
    "squeeze": _squeeze,
    "getitem": _select,
    "dropout": _dropout,
    "avg_pool1d": _pool(1),
    "avg_pool2d": _pool(2),
    "adaptive_avg_pool1d": _adaptive(1),
    "adaptive_avg_pool2d": _adaptive(2),
    "layer_norm": lambda normalized_shape, weight=None, bias=None, eps=1e-5: Normalize(
        eps, len(normalized_shape), True
    ),
}
