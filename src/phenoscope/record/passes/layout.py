"""How a layer's filters lie in memory: the form in which the compiled passes see every kind of layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import Layer


class Layout(NamedTuple):
    """Entry k of channel c of filter f of group g is at `offset + g sg + f sf + c sc + k sk`.

    `order` says which axis runs fastest in memory, with a step of 1: "entries" (a contiguous convolution), "channels"
    (linear layers, channels-last convolutions, heads) or "filters" (weights stored input first).
    """

    order: str
    offset: int
    groups: int
    filters: int
    channels: int
    entries: int
    sg: int
    sf: int
    sc: int
    sk: int


def layout(layer: Layer, weight: Tensor) -> Layout | None:
    """The layer's layout in `weight`'s memory; `None` if it is not regular enough for a compiled pass."""
    view = layer.blocks(weight)
    groups, filters, channels, *sizes = view.shape
    sg, sf, sc, *steps = view.stride()
    collapsed = _collapse(sizes, steps)
    if collapsed is None or not is_dense(weight):
        return None
    entries, sk = collapsed
    axes = {"entries": (entries, sk), "channels": (channels, sc), "filters": (filters, sf)}
    present = {axis: step for axis, (size, step) in axes.items() if size > 1}
    order = min(present, key=lambda axis: present[axis]) if present else "channels"
    if present and present[order] != 1:
        return None
    if entries == 1 and order == "entries":
        order = "channels"
    offset = int(view.storage_offset()) - int(weight.storage_offset())
    return Layout(order, offset, groups, filters, channels, entries, sg, sf, sc, sk)


def is_dense(weight: Tensor) -> bool:
    """Whether the tensor covers its memory without holes or overlaps, in any order of its axes."""
    expected = 1
    for size, stride in sorted(zip(weight.shape, weight.stride(), strict=True), key=lambda axis: axis[1]):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def flat(weight: Tensor) -> Tensor:
    """A dense tensor's memory as one axis."""
    return torch.as_strided(weight, (weight.numel(),), (1,), weight.storage_offset())


def _collapse(sizes: list[int], steps: list[int]) -> tuple[int, int] | None:
    """Several axes as one (length, step), if their entries lie at equal steps."""
    axes = sorted((step, size) for size, step in zip(sizes, steps, strict=True) if size != 1)
    if not axes:
        return 1, 1
    first, length = axes[0][0], 1
    for step, size in axes:
        if step != first * length:
            return None
        length *= size
    return length, first
