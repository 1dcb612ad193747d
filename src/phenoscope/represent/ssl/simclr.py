"""SimCLR: two views of an example are told from the views of all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.random import child_seeds, seeded
from ...data.batches import Data, batches
from ...train import Watch, build
from ..losses.contrastive import ntxent
from .result import Optimizer, SSLResult, Transform, train_views

_ADAM = partial(torch.optim.Adam, lr=1e-3)


def simclr(
    encoder: nn.Module,
    data: Tensor | Data,
    transform: Transform,
    *,
    steps: int,
    projection: tuple[int, int] | nn.Module = (128, 64),
    temperature: float = 0.5,
    batch_size: int = 128,
    optimizer: Optimizer = _ADAM,
    schedule: Callable[[int], float] | None = None,
    watch: Watch | None = None,
    generator: torch.Generator | int | None = None,
    progress: Callable[[int, int | None, float], object] | None = None,
) -> SSLResult:
    """Contrastive learning of representations (Chen, Kornblith, Norouzi and Hinton, ICML 2020).

    Of every batch two random views go through the encoder and a projection head, and `ntxent` compares their
    projections. What is of use afterwards are the encoder's features; the head's are worse.

    Args:
        encoder: from a batch to features; it is trained in place. Features of several axes are flattened for the head.
        data: inputs, a pair `(x, y)` whose labels are not used, or a loader of either.
        transform: `transform(x, generator) -> x`, a random view of a batch: `data.compose(data.spatial, data.color)`.
        steps: how many updates.
        projection: hidden and output units of the head Linear-BatchNorm-ReLU-Linear, or a head.
        temperature: of `ntxent`; the paper uses 0.1 on ImageNet and 0.5 on CIFAR-10.
        batch_size: examples in a batch: each is told from twice as many views.
        optimizer: what makes one of parameters; by default Adam at 0.001.
        schedule: a function from the step to a factor on the learning rate, as `train.cosine(steps)`.
        watch: functions to call at chosen steps; they get encoder and head as one `nn.Sequential`.
        generator: what initializes the head, orders the examples and draws the views.
        progress: as for `train.fit`.

    Returns:
        The encoder, the head and the loss over steps.

    Raises:
        InputError: sizes that are not positive, or as `train.fit` does.
    """
    generator = seeded(generator)
    if isinstance(projection, nn.Module):
        head = projection
    else:
        head = _head(encoder, data, projection, child_seeds(generator, 1)[0])
    return train_views(
        encoder, head, data, transform, partial(ntxent, temperature=temperature), steps=steps, optimizer=optimizer,
        batch_size=batch_size, schedule=schedule, watch=watch, generator=generator, progress=progress,
    )  # fmt: skip


def _head(encoder: nn.Module, data: Tensor | Data, sizes: tuple[int, int], seed: int) -> nn.Module:
    """A head for as many features as the encoder gives, where the encoder is."""
    hidden, out = sizes
    if min(sizes) < 1:
        raise InputError(f"a projection needs at least one hidden and one output unit, not {sizes}")
    if isinstance(data, Tensor):
        data = (data, data.new_zeros(data.shape[:1]))
    batch = next(iter(batches(data, 1)))
    x = (batch if isinstance(batch, Tensor) else batch[0])[:1]
    like = next(encoder.parameters(), x)
    with unchanged(encoder), torch.no_grad():
        encoder.eval()
        features = encoder(x.to(like.device, like.dtype)).flatten(1).shape[1]

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
        )

    return build(make, generator=seed).to(like.device, like.dtype)
