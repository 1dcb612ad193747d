"""The pass in plain torch: for devices without a compiled one, and for weights that lie irregularly in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..evolution import compare
from .watched import Moved, Watched


class PlainPass:
    """Measures layers by the definition, with temporaries of a layer's size."""

    def __init__(self, layers: list[Watched]) -> None:
        self._layers = layers
        self._before = [layer.layer.blocks(layer.weight.detach()).clone() for layer in layers]

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call, and the copies brought up to date."""
        parts = []
        for layer, before in zip(self._layers, self._before, strict=True):
            after = layer.layer.blocks(layer.weight.detach())
            parts.append(compare(before, after, layer.threshold))
            before.copy_(after)
        joined = [torch.cat(column) for column in zip(*parts, strict=True)]
        return lambda: Moved(*(column.cpu().numpy() for column in joined))

    def refresh(self) -> None:
        """Bring the copies up to date without measuring."""
        for layer, before in zip(self._layers, self._before, strict=True):
            before.copy_(layer.layer.blocks(layer.weight.detach()))
