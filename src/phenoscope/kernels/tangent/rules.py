"""What a layer's parameters add to the tangent kernel, from what it takes in and the derivatives by what it gives.

Linear and convolutional layers compute y = s W u + t b from the patch u at every position, so that the gradient
of an example by (W, b) is the sum over positions l of g_l (s u_l, t)^T. With W of shape (G, O, K) for G groups, patches
come as (N, G, K, L) with t as a further row, slopes g as (N, E, G, O, L) for E outputs of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...models.ntk import NTKConv2d, NTKLinear

Rule = Any  # Patches | Tokens | Scales

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CHANNEL_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer that has trainable parameters of its own, `None` if there is none for it."""
    own = {name for name, p in layer._parameters.items() if p is not None}
    trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
    if not trainable or not own <= {"weight", "bias"} or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    kind = type(layer)
    if kind in (nn.Linear, NTKLinear, NTKConv2d, *_CONVOLUTIONS):
        return Patches(layer)
    if kind is nn.Embedding and layer.max_norm is None and not layer.sparse and not layer.scale_grad_by_freq:
        return Tokens(layer)
    if kind in (*_CHANNEL_NORMS, nn.LayerNorm, nn.RMSNorm):
        return Scales(layer)
    return None


class Patches:
    """Linear layers, on one or several positions, and convolutions."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.spatial = layer, layer.weight.ndim - 2
        self.groups = layer.groups if self.spatial else 1
        weight, bias = _scales(layer)
        has_bias = layer.bias is not None and layer.bias.requires_grad and bias != 0
        self.weight = weight if layer.weight.requires_grad else None
        self.bias = bias if has_bias else None
        self.outputs = layer.weight.shape[0] // self.groups
        if self.weight is None and self.bias is None:  # trainable, but multiplied by zero
            self.bias = 0.0
        self.width = (0 if self.weight is None else layer.weight[0].numel()) + (0 if self.bias is None else 1)
        self.size = self.groups * self.outputs * self.width
        self.parameters = [p for p in layer.parameters(recurse=False) if p.requires_grad]

    def taken(self, uses: Sequence[Tensor]) -> Tensor:
        """Patches (N, G, K, L) of all uses of the layer, one after the other."""
        found = [self._patches(x) for x in uses]
        return found[0] if len(found) == 1 else torch.cat(found, 3)

    def slopes(self, gradients: Sequence[Tensor]) -> Tensor:
        """(N, G, O, L) from the derivatives by what every use gave."""
        if self.spatial:
            found = [g.reshape(len(g), self.groups, self.outputs, -1) for g in gradients]
        else:
            found = [g.reshape(len(g), 1, -1, self.outputs).transpose(2, 3) for g in gradients]
        return found[0] if len(found) == 1 else torch.cat(found, 3)

    def formed(self, taken: Tensor, slopes: Tensor) -> Tensor:
        """Gradients (N, E, G, O, K)."""
        n, count, groups, outputs, positions = slopes.shape
        rows = slopes.transpose(1, 2).reshape(n * groups, count * outputs, positions)
        found = torch.bmm(rows, taken.reshape(n * groups, -1, positions).transpose(1, 2))
        return found.view(n, groups, count, outputs, -1).transpose(1, 2)

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        """Products (G, n1, L, n2, L) of patches."""
        flat = [each.permute(1, 0, 3, 2).reshape(self.groups, -1, each.shape[2]) for each in (a, b)]
        return (flat[0] @ flat[1].transpose(1, 2)).view(self.groups, len(a), a.shape[3], len(b), b.shape[3])

    def _patches(self, x: Tensor) -> Tensor:
        n = len(x)
        if self.weight is None:
            return x.new_full((n, self.groups, 1, self._positions(x)), self.bias or 0.0)
        if not self.spatial:
            found = x.reshape(n, 1, -1, x.shape[-1]).transpose(2, 3)
        else:
            windows = _windows(self.layer, x)
            found = windows.reshape(n, self.groups, -1, math.prod(windows.shape[2 + self.spatial :]))
        if self.bias is None:
            return found if self.weight == 1 else found * self.weight
        whole = found.new_full((n, self.groups, self.width, found.shape[3]), self.bias)
        torch.mul(found, self.weight, out=whole[:, :, :-1])
        return whole

    def _positions(self, x: Tensor) -> int:
        if not self.spatial:
            return x[0, ..., 0].numel()
        return math.prod(_windows(self.layer, x[:1]).shape[2 + self.spatial :])


class Tokens:
    """Embeddings: the patch at a position is one-hot, so that two positions' product is whether tokens are the same."""

    groups = 1

    def __init__(self, layer: nn.Embedding) -> None:
        self.layer, self.outputs, self.width = layer, layer.embedding_dim, layer.num_embeddings
        self.size, self.parameters = self.outputs * self.width, [layer.weight]

    def taken(self, uses: Sequence[Tensor]) -> Tensor:
        """Tokens (N, L); padding, which has no derivative, is -1."""
        tokens = torch.cat([x.reshape(len(x), -1) for x in uses], 1)
        padding = self.layer.padding_idx
        return tokens if padding is None else tokens.masked_fill(tokens == padding, -1)

    def slopes(self, gradients: Sequence[Tensor]) -> Tensor:
        return torch.cat([g.reshape(len(g), 1, -1, self.outputs).transpose(2, 3) for g in gradients], 3)

    def formed(self, taken: Tensor, slopes: Tensor) -> Tensor:
        known = (taken >= 0)[:, None, None, None]
        where = taken.clamp(min=0)[:, None, None, None].expand(slopes.shape)
        return slopes.new_zeros(*slopes.shape[:4], self.width).scatter_add_(4, where, slopes * known)

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        same = (a[:, :, None, None] == b) & (a >= 0)[:, :, None, None]
        return same[None].to(self.layer.weight.dtype)


class Scales:
    """What norms multiply by and add in the end; their gradients are no larger than what the layer gives."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.parameters = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)

    def taken(self, uses: Sequence[Tensor]) -> list[Tensor]:
        """Normalized inputs of every use."""
        return [_normalized(self.layer, x) for x in uses]

    def gradient(self, taken: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        """Gradients (N, parameters)."""
        weight = self.layer.weight.requires_grad
        bias = getattr(self.layer, "bias", None)
        parts = []
        if weight:
            parts.append(sum(self._summed(x * g) for x, g in zip(taken, gradients, strict=True)))
        if bias is not None and bias.requires_grad:
            parts.append(sum(self._summed(g) for g in gradients))
        return torch.cat(parts, 1)  # type: ignore[arg-type]

    def _summed(self, values: Tensor) -> Tensor:
        if isinstance(self.layer, (nn.LayerNorm, nn.RMSNorm)):
            return values.reshape(len(values), -1, self.layer.weight.numel()).sum(1)
        return values.reshape(*values.shape[:2], -1).sum(2)


def _scales(layer: Any) -> tuple[float, float]:
    """s and t: weights and biases of the NTK parametrization stand beside their scales."""
    if type(layer) in (NTKLinear, NTKConv2d):
        return math.sqrt(layer.sigma_w2 / layer.weight[0].numel()), math.sqrt(layer.sigma_b2)
    return 1.0, 1.0


def _windows(layer: Any, x: Tensor) -> Tensor:
    """Patches (N, channels, *kernel, *positions) as a view of the padded input."""
    mode = getattr(layer, "padding_mode", "zeros")
    padding = getattr(layer, "_reversed_padding_repeated_twice", None)
    if padding is None:
        padding = [side for each in reversed(_each(layer.padding, x.ndim - 2)) for side in (each, each)]
    if any(padding):
        x = functional.pad(x, padding, mode="constant" if mode == "zeros" else mode)
    x = x.contiguous()
    count = x.ndim - 2
    kernel = layer.weight.shape[2:]
    stride = _each(getattr(layer, "stride", 1), count)
    dilation = _each(getattr(layer, "dilation", 1), count)
    places = [
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    steps = x.stride()[2:]
    strides = [
        *x.stride()[:2],
        *(step * d for step, d in zip(steps, dilation, strict=True)),
        *(step * s for step, s in zip(steps, stride, strict=True)),
    ]
    return x.as_strided((*x.shape[:2], *kernel, *places), strides, x.storage_offset())


def _each(value: Any, count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def _normalized(layer: Any, x: Tensor) -> Tensor:
    if isinstance(layer, _BATCH_NORMS):
        return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return functional.rms_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(x, layer.num_groups, eps=layer.eps)
    if layer.training or not layer.track_running_stats:
        return functional.instance_norm(x, eps=layer.eps)
    return functional.instance_norm(x, layer.running_mean, layer.running_var, use_input_stats=False, eps=layer.eps)
