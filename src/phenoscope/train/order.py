"""In which order examples are seen, the same alone and in a fleet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batches import batch_count, batches
from .outputs import placed


def orders(n: int, generators: Sequence[torch.Generator], device: torch.device) -> Iterator[Tensor]:
    """For every epoch an order of `n` examples by each generator: (generators, n), on the device at once."""
    while True:
        drawn = [torch.randperm(n, generator=generator, device=generator.device) for generator in generators]
        yield torch.stack([order.to(device) for order in drawn] if len({o.device for o in drawn}) > 1 else drawn).to(
            device
        )


def spans(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Where the batches of an epoch begin and end; the last may be smaller."""
    return [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


class Epochs:
    """The batches of one epoch after another, for one network; tensors lie on its device from the start if they fit.

    The order of an epoch is `torch.randperm` of the generator, as `data.batches` draws it.
    """

    def __init__(self, data: Any, batch_size: int | None, generator: torch.Generator, model: nn.Module) -> None:
        self.model, self.generator = model, generator
        self.whole = batch_size is None
        self.tensors = isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(p, Tensor) for p in data)
        self.count = batch_count(data, 1 if batch_size is None else batch_size)
        self.data = _resident(data, model) if self.tensors else data
        self.size = 1 if batch_size is None else batch_size
        if self.whole and self.tensors:
            self.size, self.count = len(self.data[0]), 1

    def __iter__(self) -> Iterator[Iterator[Any]]:
        while True:
            yield self._epoch()

    def _epoch(self) -> Iterator[Any]:
        if not self.tensors or self.whole:
            for x, y in batches(self.data, self.size):
                yield placed(x, y, self.model)
            return
        x, y = self.data
        order = next(orders(len(x), [self.generator], x.device))[0]
        for start, end in spans(len(x), self.size):
            rows = order[start:end]
            yield placed(x[rows], y[rows], self.model)


def _resident(data: Any, model: nn.Module) -> Any:
    """The tensors on the model's device, or where they are if they do not fit."""
    try:
        return placed(data[0], data[1], model)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return data
