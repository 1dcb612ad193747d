"""Train one network, and ask how often it is right."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.random import seeded
from ..data.batches import Data, batch_count, batches

if TYPE_CHECKING:
    import xarray

_SECONDS_BETWEEN_REPORTS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A trained network.

    Attributes:
        model: the network.
        history: `loss` of every batch before its update, over `step`, from 1.
    """

    model: nn.Module
    history: xarray.Dataset


def fit(
    model: nn.Module,
    data: Data,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    batch_size: int = 64,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    generator: torch.Generator | int | None = None,
    log: Callable[..., object] | None = None,
    progress: Callable[[int, int | None, float], object] | None = None,
) -> Fit:
    """Train a network in place, on its own device and in its own dtype.

    A loss that is no longer finite does not end the training: it stands in the history as it is.

    Args:
        model: from a batch to scores; its mode is training meanwhile, and afterwards what it was.
        data: a pair of tensors `(x, y)`, or a loader of such batches that can be gone through once an epoch.
        optimizer: of the model's parameters.
        epochs: how often to go through the data.
        loss_fn: from outputs and labels to their mean loss.
        batch_size: examples in a batch, where the data are tensors.
        schedule: of the learning rate; stepped after every epoch.
        generator: what shuffles tensors, anew for every epoch. Dropout draws from torch's own generator.
        log: called as `log(loss=tensor)` after every update, without waiting for the device: a recorder's `log`.
        progress: called as `progress(step, steps, loss)` every half second at most, because reading the loss waits for
            the device, and after the last step. `steps` is `None` where a loader does not know its length.

    Raises:
        InputError: no epochs, data that `batches` refuses, or a loader that gives no batches.
    """
    import numpy
    import xarray

    if epochs < 1:
        raise InputError(f"epochs must be at least 1, not {epochs}")
    count = batch_count(data, batch_size)
    steps = None if count is None else epochs * count
    generator = seeded(generator)
    losses: list[Tensor] = []
    reported, report_at = 0, time.monotonic() + _SECONDS_BETWEEN_REPORTS
    with _mode(model, training=True):
        for epoch in range(1, epochs + 1):
            before = len(losses)
            for x, y in batches(data, batch_size, generator=generator, shuffle=True):
                x, y = _placed(x, y, model)
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                if log:
                    log(loss=losses[-1])
                if progress and time.monotonic() >= report_at:
                    reported = len(losses)
                    progress(reported, steps, loss.item())
                    report_at = time.monotonic() + _SECONDS_BETWEEN_REPORTS
            if len(losses) == before:
                raise InputError(f"the loader gave no batches in epoch {epoch}: give one that starts again every time")
            if schedule is not None:
                schedule.step()
    if progress and reported != len(losses):
        progress(len(losses), steps, losses[-1].item())
    values = torch.stack(losses).double().cpu().numpy()
    history = xarray.Dataset({"loss": ("step", values)}, {"step": numpy.arange(1, len(values) + 1)})
    return Fit(model, history)


def accuracy(model: nn.Module, data: Data, *, batch_size: int = 128) -> float:
    """The share of examples whose highest score is that of their label, from 0 to 1.

    The network works in evaluation mode, without gradients, and is left in the mode in which it was.

    Args:
        model: from a batch to scores (N, classes).
        data: a pair of tensors `(x, y)`, or a loader of such batches; `y` are classes.
        batch_size: examples at a time, where the data are tensors.

    Raises:
        InputError: data that `batches` refuses, a loader that gives no batches, or labels that are not one class an
            example.
    """
    correct: Tensor | int = 0
    total = 0
    with _mode(model, training=False), torch.no_grad():
        for x, y in batches(data, batch_size):
            x, y = _placed(x, y, model)
            decisions = model(x).argmax(1)
            if decisions.shape != y.shape:
                raise InputError(f"labels have shape {tuple(y.shape)}, the model's decisions {tuple(decisions.shape)}")
            correct = correct + (decisions == y).sum()
            total += y.numel()
    if total == 0:
        raise InputError("the loader gave no batches to measure accuracy on")
    return int(correct) / total


def _placed(x: Any, y: Any, model: nn.Module) -> tuple[Any, Any]:
    """A batch where the model is, inputs in its dtype."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return x, y
    dtype = parameter.dtype if x.is_floating_point() else x.dtype
    return x.to(parameter.device, dtype, non_blocking=True), y.to(parameter.device, non_blocking=True)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or evaluate, and give every module its own mode back: some may have been frozen in the other."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
