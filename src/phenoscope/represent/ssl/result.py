"""What learning without labels gives back, and the loop that methods of two views share."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.random import seeded
from ...data.batches import Data, batches
from ...train import Watch, fit

if TYPE_CHECKING:
    import xarray

Transform = Callable[[Tensor, torch.Generator | None], Tensor]
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclasses.dataclass(frozen=True, eq=False)
class SSLResult:
    """A network that learned without labels.

    Attributes:
        encoder: what is kept: from inputs to features.
        head: what was trained on top of it and serves no further purpose.
        history: `loss` of every batch before its update, over `step`, from 1.
        watched: what a watch saw, over `step`, or `None`.
    """

    encoder: nn.Module
    head: nn.Module
    history: xarray.Dataset
    watched: xarray.Dataset | None = None


def train_views(
    encoder: nn.Module,
    head: nn.Module,
    data: Tensor | Data,
    transform: Transform,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    optimizer: Optimizer,
    batch_size: int = 128,
    schedule: Callable[[int], float] | None = None,
    watch: Watch | None = None,
    generator: torch.Generator | int | None = None,
    progress: Callable[[int, int | None, float], object] | None = None,
) -> SSLResult:
    """Train `head(encoder(.))` in place so that two random views of the same examples suit one another.

    Both views are drawn one after the other from the same stream of random numbers and pass the network in one batch.
    Of an epoch, examples that fill no whole batch are left out.

    Args:
        encoder: from a batch to features.
        head: from features to what the loss compares.
        data: inputs, a pair `(x, y)` whose labels are not used, or a loader of either, whose own batches are taken.
        transform: `transform(x, generator) -> x`, a random view of a batch, each example its own.
        loss: of the two views' outputs (N, d), a scalar.
        steps: how many updates.
        optimizer: what makes one of the parameters of encoder and head.
        batch_size: examples in a batch, two views each.
        schedule: a function from the step to a factor on the learning rate.
        watch: functions to call at chosen steps; they get encoder and head as one `nn.Sequential`.
        generator: what orders the examples and draws the views.
        progress: as for `train.fit`.

    Raises:
        InputError: as `train.fit` does.
    """
    network = nn.Sequential(OrderedDict(encoder=encoder, head=head))
    views = _Views(data, transform, batch_size, seeded(generator), next(network.parameters(), None))

    def objective(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        first, second = model(x).chunk(2)
        return loss(first, second)

    found = fit(
        network, views, steps=steps, optimizer=optimizer, objective=objective, schedule=schedule, watch=watch,
        progress=progress,
    )  # fmt: skip
    return SSLResult(encoder, head, found.history, found.watched)


class _Views:
    """A loader of two views of every batch, one after the other."""

    def __init__(
        self, data: Any, transform: Transform, size: int, generator: torch.Generator, like: Tensor | None
    ) -> None:
        if isinstance(data, Tensor):
            data = (data, data.new_zeros(data.shape[:1]))
        self.tensors = isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(p, Tensor) for p in data)
        if self.tensors:
            batches(data, size)
            x, y = data
            if like is not None:  # views are drawn where the network is
                x = x.to(like.device, like.dtype)
            data = x, y.to(x.device)
        self.data, self.transform, self.size, self.generator, self.like = data, transform, size, generator, like

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        whole = self.tensors and len(self.data[0]) >= self.size
        for batch in batches(self.data, self.size, generator=self.generator, shuffle=True):
            x = batch if isinstance(batch, Tensor) else batch[0]
            if whole and len(x) < self.size:
                continue
            if self.like is not None:
                x = x.to(self.like.device, self.like.dtype)
            both = torch.cat([self.transform(x, self.generator), self.transform(x, self.generator)])
            yield both, torch.arange(len(both), device=both.device) % len(x)
