"""The tangent kernel of a fully connected network, layer by layer, without derivatives by parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.guard import unchanged
from ..models.ntk import NTKLinear

_EXAMPLES = 2**25  # numbers kept for the backward passes of a chunk


class Unsuited(Exception):
    """Why a network's kernel cannot be had this way."""


@dataclasses.dataclass
class Seen:
    """What a layer took in and gave out, and the squared scales of its weights and bias in the kernel."""

    weight: float
    bias: float
    inputs: Tensor
    outputs: Tensor


def layered_ntk(
    model: nn.Module, x1: Tensor, x2: Tensor | None, chosen: range, trace: bool, chunk: int | None
) -> Tensor:
    """Sum over layers y = s W h + t b of (s^2 h_i . h_j + t^2) (dy_i . dy_j), a product of two small matrices.

    Raises:
        Unsuited: parameters outside of linear layers, or a layer that is used twice or on sequences.
    """
    layers = _linear_layers(model)
    size = chunk or max(1, _EXAMPLES // (len(chosen) * sum(layer.out_features for layer in layers)))
    columns = list((x1 if x2 is None else x2).split(size))
    kept = [_traced(model, layers, part, chosen) for part in columns] if len(columns) <= 4 else None
    lines = []
    for i, rows in enumerate(x1.split(size)):
        left = kept[i] if kept is not None and x2 is None else _traced(model, layers, rows, chosen)
        right: Any = kept if kept is not None else (_traced(model, layers, part, chosen) for part in columns)
        lines.append(torch.cat([_product(left, other, trace) for other in right], 1))
    kernel = torch.cat(lines)
    return kernel / len(chosen) if trace else kernel


def _product(left: list[tuple[Seen, Tensor]], right: list[tuple[Seen, Tensor]], trace: bool) -> Tensor:
    total: Tensor | None = None
    for (a, slopes_a), (b, slopes_b) in zip(left, right, strict=True):
        inputs = a.weight * (a.inputs @ b.inputs.T) + a.bias
        if trace:
            part = inputs * (slopes_a.flatten(1) @ slopes_b.flatten(1).T)
        else:
            n1, count, _ = slopes_a.shape
            products = slopes_a.flatten(0, 1) @ slopes_b.flatten(0, 1).T
            part = inputs[:, :, None, None] * products.view(n1, count, -1, count).transpose(1, 2)
        total = part if total is None else total + part
    assert total is not None
    return total


def _traced(model: nn.Module, layers: list[Any], x: Tensor, chosen: range) -> list[tuple[Seen, Tensor]]:
    """Every layer's inputs, and the derivatives (N, C, out) of the outputs by what it gives."""
    with unchanged(model), torch.enable_grad(), _watched(layers) as seen:
        out = model(x).reshape(len(x), -1)
        for layer in layers:
            if len(seen[layer]) != 1:
                raise Unsuited(f"a layer is used {len(seen[layer])} times")
        found = [seen[layer][0] for layer in layers]
        if any(each.inputs.ndim != 2 or len(each.inputs) != len(x) for each in found):
            raise Unsuited("a linear layer works on sequences")
        by_output = [
            torch.autograd.grad(out[:, c].sum(), [each.outputs for each in found], retain_graph=True, allow_unused=True)
            for c in chosen
        ]
    result = []
    for number, each in enumerate(found):
        slopes = [grads[number] for grads in by_output]
        zero = torch.zeros_like(each.outputs)
        result.append((each, torch.stack([zero if slope is None else slope for slope in slopes], 1).detach()))
        each.inputs, each.outputs = each.inputs.detach(), zero
    return result


@contextmanager
def _watched(layers: list[Any]) -> Iterator[dict[Any, list[Seen]]]:
    seen: dict[Any, list[Seen]] = {layer: [] for layer in layers}

    def keep(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not inputs:
            raise Unsuited("a linear layer gets its input by keyword")
        seen[layer].append(Seen(*_squared_scales(layer), inputs[0], output))
        return output.clone()  # an activation that works in place must not change what is differentiated by

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _squared_scales(layer: Any) -> tuple[float, float]:
    weight, bias = (layer.sigma_w2 / layer.in_features, layer.sigma_b2) if isinstance(layer, NTKLinear) else (1.0, 1.0)
    has_bias = layer.bias is not None and layer.bias.requires_grad
    return (weight if layer.weight.requires_grad else 0.0), (bias if has_bias else 0.0)


def _linear_layers(model: nn.Module) -> list[Any]:
    layers = [m for m in model.modules() if type(m) in (nn.Linear, NTKLinear)]
    layers = [m for m in layers if any(p.requires_grad for p in m.parameters(recurse=False))]
    theirs = [id(p) for layer in layers for p in layer.parameters(recurse=False)]
    if len(set(theirs)) != len(theirs):
        raise Unsuited("layers share parameters")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in theirs:
            raise Unsuited(f"{name!r} is not a parameter of a linear layer")
    if not layers:
        raise Unsuited("it has no linear layer")
    for layer in layers:
        if not set(layer._parameters) <= {"weight", "bias"} or layer._forward_hooks or layer._forward_pre_hooks:
            raise Unsuited("a linear layer has hooks or further parameters")
    return layers
