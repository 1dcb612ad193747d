"""Train one network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import InputError
from ..core.random import seeded
from ..data.batches import Data
from .holding import Held
from .order import Epochs
from .outputs import in_mode
from .schedule import Schedule
from .states import States
from .watch import Due, Seen, Watch

if TYPE_CHECKING:
    import xarray

_SECONDS_BETWEEN_REPORTS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A trained network.

    Attributes:
        model: the network.
        history: `loss` of every batch before its update, over `step`, from 1.
        states: the snapshots asked for.
        watched: what a watch saw, over `step`; empty without one.
    """

    model: nn.Module
    history: xarray.Dataset
    states: States
    watched: xarray.Dataset


def fit(
    model: nn.Module,
    data: Data,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer],
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    objective: Callable[[nn.Module, Any, Any], Tensor] | None = None,
    batch_size: int | None = 64,
    schedule: Schedule | LRScheduler | None = None,
    masks: Mapping[str, Tensor] | None = None,
    watch: Watch | None = None,
    states: States | None = None,
    stop_at: float | None = None,
    generator: torch.Generator | int | None = None,
    log: Callable[..., object] | None = None,
    progress: Callable[[int, int | None, float], object] | None = None,
) -> Fit:
    """Train a network in place, on its own device and in its own dtype.

    A loss that is no longer finite does not end the training: it stands in the history as it is.

    Args:
        model: from a batch to scores; its mode is training meanwhile, and afterwards what it was.
        data: a pair of tensors `(x, y)`, or a loader of such batches that can be gone through once an epoch.
        steps: how many updates to make; or
        epochs: how often to go through the data. Exactly one of the two.
        optimizer: of the model's parameters, or what makes one of them: `functools.partial(torch.optim.SGD, lr=0.1)`.
        loss_fn: from outputs and labels to their mean loss.
        objective: `objective(model, x, y)` gives the loss in place of `loss_fn`, where it is more than a function of
            the outputs.
        batch_size: examples in a batch, where the data are tensors; `None` takes all, in order, at every step.
        schedule: of the learning rate: a function from the step, from 0, to a factor on it, as `cosine` makes; or one
            of torch's, stepped after every epoch.
        masks: parameter name -> {0, 1} tensor: on the weights from the start, on their gradients before and on the
            weights after every step.
        watch: functions of the model to call at chosen steps.
        states: at which steps to keep the state of the model.
        stop_at: end after the first epoch whose mean loss is at most this.
        generator: what shuffles tensors, anew for every epoch. Dropout draws from torch's own generator.
        log: called as `log(loss=tensor)` after every update, without waiting for the device: a recorder's `log`.
        progress: called as `progress(step, steps, loss)` every half second at most, because reading the loss waits for
            the device, and after the last step. `steps` is `None` where a loader does not know its length.

    Raises:
        InputError: no steps, data that `batches` refuses, a loader that gives no batches, masks that do not match the
            parameters, or a watch or states beyond the last step.
    """
    import numpy
    import xarray

    check_length(steps, epochs)
    feed = Epochs(data, batch_size, seeded(generator), model)
    if isinstance(optimizer, Optimizer):
        updater = optimizer
    elif callable(optimizer):
        updater = optimizer(model.parameters())
    else:
        raise InputError(f"optimizer must be a torch optimizer or make one, not {type(optimizer).__name__}")
    rates = [group["lr"] for group in updater.param_groups]
    factor = None if isinstance(schedule, LRScheduler) else schedule
    total = steps if epochs is None else None if feed.count is None else epochs * feed.count
    seen, kept = None if watch is None else Seen(watch), States(at=()) if states is None else states.empty()
    look_due = Due(() if watch is None else watch.at, "watch", total, early=stop_at is not None)
    keep_due = Due(kept.at, "states", total, early=stop_at is not None)

    def look(step: int, last: bool = False) -> None:
        if seen and look_due(step, last=last) and step not in seen.steps[-1:]:
            with in_mode(model, training=False), torch.no_grad():
                seen.look(step, lambda observe: observe(model))
        if keep_due(step, last=last) and step not in kept:
            kept.keep(step, model.state_dict())

    losses: list[Tensor] = []
    reported, report_at = 0, time.monotonic() + _SECONDS_BETWEEN_REPORTS
    with in_mode(model, training=True):
        held = Held(masks, model) if masks is not None else None
        look(0)
        for epoch, pairs in enumerate(feed, 1):
            before = len(losses)
            for x, y in pairs:
                if factor is not None:
                    _scale(updater, rates, factor(len(losses)))
                updater.zero_grad()
                loss = loss_fn(model(x), y) if objective is None else objective(model, x, y)
                loss.backward()
                if held:
                    held.gradients()
                updater.step()
                if held:
                    held.weights()
                losses.append(loss.detach())
                if log:
                    log(loss=losses[-1])
                if progress and time.monotonic() >= report_at:
                    reported = len(losses)
                    progress(reported, total, loss.item())
                    report_at = time.monotonic() + _SECONDS_BETWEEN_REPORTS
                look(len(losses), last=len(losses) == total)
                if len(losses) == steps:
                    break
            if len(losses) == before:
                raise InputError(f"the loader gave no batches in epoch {epoch}: give one that starts again every time")
            if isinstance(schedule, LRScheduler):
                schedule.step()
            if epoch == epochs or len(losses) == steps or _reached(losses[before:], stop_at):
                break
        look(len(losses), last=True)
    if factor is not None:
        _scale(updater, rates, 1.0)
    if progress and reported != len(losses):
        progress(len(losses), total, losses[-1].item())
    values = torch.stack(losses).double().cpu().numpy()
    history = xarray.Dataset({"loss": ("step", values)}, {"step": numpy.arange(1, len(values) + 1)})
    return Fit(model, history, kept, seen.dataset() if seen else xarray.Dataset())


def check_length(steps: int | None, epochs: int | None) -> None:
    """Exactly one of the two, and at least one of it."""
    if (steps is None) == (epochs is None):
        raise InputError("give either steps or epochs" + ("" if steps is None else ", not both"))
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")


def _scale(optimizer: Optimizer, rates: list[Any], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def _reached(losses: list[Tensor], target: float | None) -> bool:
    return target is not None and torch.stack(losses).mean().item() <= target
