"""Layers of many networks at once, as batched products: activations (members, batch, ...), tensors (members, ...).

Known are trees of `nn.Sequential` of common leaves; of any other network `stack` says `None`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# From about here one convolution after another is faster on CPU than all of them as the groups of one.
_LARGE_CONVOLUTION = 50_000_000  # multiplications a member

Tensors = Mapping[str, Tensor]
Step = Callable[[Tensor, Tensors], Tensor]
Names = dict[str, str]

# these act on every element alone
_ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
    nn.Tanh, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    nn.Tanhshrink, nn.Threshold, nn.LogSigmoid, nn.Dropout,
)  # fmt: skip
# these act on every example alone
_BY_EXAMPLE = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.Upsample,
)  # fmt: skip


def stack(model: nn.Module) -> list[Step] | None:
    """The network as steps on stacked activations and tensors; `None` where a part of it is not known."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = {name: first.setdefault(id(tensor), name) for name, tensor in tensors}
    steps: list[Step] = []
    return steps if _add(model, "", names, steps) else None


def _add(module: nn.Module, prefix: str, names: Names, steps: list[Step]) -> bool:
    """Append the steps of a module; whether all of it is known."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks) or "forward" in vars(module):
        return False
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return all(_add(child, f"{prefix}{name}.", names, steps) for name, child in module._modules.items())
    kind = type(module)
    own = {local: names[prefix + local] for local in [*module._parameters, *module._buffers] if prefix + local in names}
    step = None
    if kind in _ELEMENTWISE:
        step = _elementwise(module)
    elif kind in _BY_EXAMPLE and not getattr(module, "return_indices", False):
        step = _by_example(module)
    elif kind in _MAKERS:
        step = _MAKERS[kind](module, own)
    if step is None:
        return False
    steps.append(step)
    return True


def _elementwise(module: nn.Module) -> Step:
    return lambda h, _: module(h)


def _by_example(module: nn.Module) -> Step:
    return lambda h, _: _each_example(module, h)


def _each_example(function: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Apply to members and examples as one axis, in the order in which they lie in memory."""
    members, size = h.shape[:2]
    if h.stride(0) < h.stride(1):  # as grouped convolutions leave them
        return function(h.transpose(0, 1).flatten(0, 1)).unflatten(0, (size, members)).transpose(0, 1)
    return function(h.flatten(0, 1)).unflatten(0, (members, size))


def _side_by_side(function: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Apply to (batch, members x channels, ...)."""
    members = h.shape[0]
    return function(h.transpose(0, 1).flatten(1, 2)).unflatten(1, (members, -1)).transpose(0, 1)


def _of_member(tensor: Tensor, ndim: int, after: int) -> Tensor:
    """Parameters (members, ...) against activations of `ndim` axes, of which `after` follow those of the parameters."""
    return tensor.reshape(len(tensor), *[1] * (ndim - tensor.ndim - after), *tensor.shape[1:], *[1] * after)


def _linear(module: Any, own: Names) -> Step:
    weight, bias = own["weight"], own.get("bias")

    def step(h: Tensor, tensors: Tensors) -> Tensor:
        # Features before examples in memory: gradients of weights then lie as the weights do, and a softmax over a
        # few classes runs over many examples at a time.
        columns = (h if h.ndim == 3 else h.flatten(1, -2)).transpose(1, 2)
        product = tensors[weight], columns
        out = torch.bmm(*product) if bias is None else torch.baddbmm(tensors[bias][:, :, None], *product)
        out = out.transpose(1, 2)
        return out if h.ndim == 3 else out.unflatten(1, h.shape[1:-1])

    return step


def _conv(module: Any, own: Names) -> Step | None:
    if module.padding_mode != "zeros":
        return None
    convolve = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d
    weight, bias = own["weight"], own.get("bias")

    def grouped(h: Tensor, tensors: Tensors) -> Tensor:
        kernels = tensors[weight].flatten(0, 1)
        offsets = None if bias is None else tensors[bias].flatten()
        settings = (module.stride, module.padding, module.dilation, module.groups * len(h))
        return _side_by_side(lambda x: convolve(x, kernels, offsets, *settings), h)

    def one_by_one(h: Tensor, tensors: Tensors) -> Tensor:
        offsets = [None] * len(h) if bias is None else tensors[bias]
        settings = (module.stride, module.padding, module.dilation, module.groups)
        each = zip(h, tensors[weight], offsets, strict=True)
        return torch.stack([convolve(x, kernel, offset, *settings) for x, kernel, offset in each])

    def work(h: Tensor, tensors: Tensors) -> int:
        return h[0].numel() * tensors[weight][0].numel() // (h.shape[2] * math.prod(module.stride))

    def step(h: Tensor, tensors: Tensors) -> Tensor:
        slow = len(h) > 1 and h.device.type == "cpu" and work(h, tensors) > _LARGE_CONVOLUTION
        return one_by_one(h, tensors) if slow else grouped(h, tensors)

    return step


def _batch_norm(module: Any, own: Names) -> Step:
    def step(h: Tensor, tensors: Tensors) -> Tensor:
        flat = {local: tensors[name].flatten() for local, name in own.items() if local != "num_batches_tracked"}
        mean, variance = flat.get("running_mean"), flat.get("running_var")
        momentum = module.momentum
        if module.training and "num_batches_tracked" in own:
            tensors[own["num_batches_tracked"]].add_(1)
            if momentum is None:
                momentum = 1 / tensors[own["num_batches_tracked"]][0].item()
        batch = module.training or mean is None

        def normalized(x: Tensor) -> Tensor:
            affine = flat.get("weight"), flat.get("bias")
            return functional.batch_norm(x, mean, variance, *affine, batch, momentum or 0.0, module.eps)

        return _side_by_side(normalized, h)

    return step


def _layer_norm(module: Any, own: Names) -> Step:
    def step(h: Tensor, tensors: Tensors) -> Tensor:
        out = functional.layer_norm(h, module.normalized_shape, eps=module.eps)
        return _affine(out, tensors, own, 0)

    return step


def _group_norm(module: Any, own: Names) -> Step:
    def step(h: Tensor, tensors: Tensors) -> Tensor:
        out = _each_example(lambda x: functional.group_norm(x, module.num_groups, eps=module.eps), h)
        return _affine(out, tensors, own, h.ndim - 3)

    return step


def _affine(h: Tensor, tensors: Tensors, own: Names, after: int) -> Tensor:
    if "weight" in own:
        h = h * _of_member(tensors[own["weight"]], h.ndim, after)
    if "bias" in own:
        h = h + _of_member(tensors[own["bias"]], h.ndim, after)
    return h


def _flatten(module: Any, own: Names) -> Step:
    start, end = (axis + 1 if axis >= 0 else axis for axis in (module.start_dim, module.end_dim))
    return lambda h, _: h.flatten(start, end)


_MAKERS: dict[type, Callable[[Any, Names], Step | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Flatten: _flatten,
}
