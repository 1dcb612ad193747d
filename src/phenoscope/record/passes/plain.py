"""The pass in plain torch: for devices without a compiled one, and for weights that lie irregularly in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..evolution import compare
from .host import to_host
from .watched import Moved, Watched


class PlainPass:
    """Measures layers by the definition, with temporaries of a layer's size."""

    def __init__(self, layers: list[Watched]) -> None:
        self._layers = layers
        self._before = [_blocks(layer).clone() for layer in layers]

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call, and the copies brought up to date."""
        parts = []
        for layer, before in zip(self._layers, self._before, strict=True):
            after = _blocks(layer)
            parts.append(compare(before, after, layer.threshold))
            before.copy_(after)
        joined = [torch.cat(column) for column in zip(*parts, strict=True)]
        ready = to_host(dict(zip(Moved._fields, joined, strict=True)))
        return lambda: Moved(**{name: column.numpy() for name, column in ready().items()})


def _blocks(layer: Watched) -> Tensor:
    weight = layer.weight.detach()
    return layer.layer.blocks(weight.cpu() if weight.device.type == "mps" else weight)  # MPS has no float64
