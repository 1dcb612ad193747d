"""What happens after each cut: fine-tune, rewind the weights, or rewind the learning rate."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..core.errors import InputError
from ..core.random import seeded
from ..data.batches import Data, batch_count
from ..models.masks import Masks
from ..train.fit import Fit, fit
from ..train.order import orders, spans
from ..train.schedule import Schedule
from ..train.states import State, States

Mode = Literal["finetune", "weight-rewind", "lr-rewind"]


@dataclasses.dataclass(frozen=True)
class Retraining:
    """Which steps of the first training are made again, with which rates and from which weights.

    Attributes:
        steps: how many updates.
        start: the step whose weights are put back first; `None` goes on from the trained ones.
        schedule: from an update of the retraining, from 0, to a factor on the learning rate.
    """

    steps: int
    start: int | None
    schedule: Schedule


def retraining(
    mode: Mode = "lr-rewind", *, steps: int, back: int | None = None, schedule: Schedule | None = None
) -> Retraining:
    """What a way of retraining after pruning repeats (Renda, Frankle and Carbin, ICLR 2020, section 2).

    The first training made T = `steps` updates, number s, from 0, with the learning rate times schedule(s); t = `back`.
    All ways make t updates:

    - `"finetune"`: from the trained weights, with the last rate: schedule(T - 1) throughout.
    - `"weight-rewind"`: from the weights after step T - t, with schedule(T - t), ..., schedule(T - 1).
    - `"lr-rewind"`: from the trained weights, with schedule(T - t), ..., schedule(T - 1).

    `retrain` and `imp` carry it out; so does `train.fleet(..., steps=, schedule=)`, for many networks at once.

    Args:
        mode: one of the three.
        steps: updates of the first training.
        back: how many of them to make again; all unless said, as the paper recommends with `"lr-rewind"`.
        schedule: of the first training, a function of the step; constant unless said.

    Raises:
        InputError: another mode, no steps, or `back` outside 0 to `steps`.

    Examples:
        >>> again = retraining("weight-rewind", steps=100, back=40, schedule=lambda step: 0.5 if step < 80 else 0.25)
        >>> again.start, again.steps, again.schedule(19), again.schedule(20)
        (60, 40, 0.5, 0.25)
    """
    if mode not in ("finetune", "weight-rewind", "lr-rewind"):
        raise InputError(f'mode must be "finetune", "weight-rewind" or "lr-rewind", not {mode!r}')
    back = steps if back is None else back
    if steps < 1 or not 0 <= back <= steps:
        raise InputError(f"back must lie between 0 and the {steps} steps of the first training, not {back}")
    begin = steps - back
    factor = schedule or (lambda step: 1.0)
    last = factor(steps - 1)
    again = (lambda step: last) if mode == "finetune" else (lambda step: factor(begin + step))
    return Retraining(back, begin if mode == "weight-rewind" and back else None, again)


def retrain(
    model: nn.Module,
    data: Data,
    *,
    masks: Mapping[str, Tensor],
    steps: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    mode: Mode = "lr-rewind",
    back: int | None = None,
    schedule: Schedule | Callable[[Optimizer], LRScheduler] | None = None,
    checkpoints: Mapping[int, State] | None = None,
    optimizer_state: Mapping[str, Any] | None = None,
    batch_size: int | None = 64,
    generator: torch.Generator | int | None = None,
    **settings: Any,
) -> Fit:
    """Train a pruned network again, in place, in one of the three ways of Renda, Frankle and Carbin (ICLR 2020).

    `retraining` says what each repeats. Weight decay and batch size stay as they were. The batches, too, are those of
    the first training from step T - t on, if `data` are tensors and the generator is the same; so the three ways with
    one `back` differ in nothing else, and rewinding weights that were not pruned repeats the first training exactly.

    Args:
        model: the trained network; pruned here.
        data: a pair of tensors `(x, y)` or a loader, whose own batches come as they are.
        masks: the weights to keep.
        steps: T, updates of the first training.
        optimizer: what makes the first training's optimizer, such as `functools.partial(torch.optim.SGD, lr=0.1)`. It
            starts without memory.
        mode: `"finetune"`, `"weight-rewind"` or `"lr-rewind"`.
        back: t, how many of the steps to make again; all unless said. 0 only prunes.
        schedule: of the first training: a function from the step, from 0, to a factor on the learning rate; or one of
            torch's classes of schedulers, bound with `functools.partial`, stepped after every epoch.
        checkpoints: with `"weight-rewind"`, step -> state: the `states` of the first training.
        optimizer_state: with `"weight-rewind"`, the optimizer's `state_dict` after step T - t, to go on with in place
            of an empty memory; what it remembers of pruned weights is removed.
        batch_size: of the first training.
        generator: of the first training.
        settings: further ones of `train.fit`, such as `loss_fn` or `watch`.

    Returns:
        What `train.fit` gives.

    Raises:
        InputError: what `retraining` refuses, no checkpoint of the step that weights are put back to, one of another
            architecture, an `optimizer_state` with another mode, or masks that do not match the parameters.
    """
    if isinstance(optimizer, Optimizer) or not callable(optimizer):
        raise InputError("optimizer must be what makes one, such as functools.partial(torch.optim.SGD, lr=0.1)")
    per_epoch = 1 if batch_size is None else batch_count(data, batch_size)
    factor = _by_step(schedule, optimizer, steps, per_epoch)
    plan = retraining(mode, steps=steps, back=back, schedule=factor)
    masks = Masks(masks)
    masks.within(model)
    if optimizer_state is not None and mode != "weight-rewind":
        raise InputError(f"optimizer_state goes with mode='weight-rewind': {mode} starts without a memory")
    begin = steps - plan.steps
    if mode != "weight-rewind" and len({factor(step) if factor else 1.0 for step in range(begin, steps)}) == 1:
        warnings.warn("the rate does not change in the steps made again: lr-rewind is finetune", stacklevel=2)
    if plan.start is not None:
        _put_back(model, checkpoints, plan.start)
    masks.apply_(model)
    if not plan.steps:
        return _nothing(model)
    updater = optimizer(model.parameters())
    if optimizer_state is not None:
        _remind(updater, optimizer_state)
        with masks.hold(model, updater):  # what it remembers of pruned weights goes at once
            pass
    if begin and batch_size is not None and isinstance(data, (tuple, list)):
        data, generator = _Resumed(data, batch_size, seeded(generator), begin), None
    return fit(
        model, data, steps=plan.steps, optimizer=updater, schedule=plan.schedule, masks=masks, batch_size=batch_size,
        generator=generator, **settings,
    )  # fmt: skip


class _Resumed:
    """The batches of `train.fit` from a step on: the rest of that epoch first, then one epoch at a time."""

    def __init__(self, data: Any, batch_size: int, generator: torch.Generator, begin: int) -> None:
        self.x, self.y = data
        self.spans = spans(len(self.x), batch_size)
        self.orders = orders(len(self.x), [generator], self.x.device)
        epochs, self.first = divmod(begin, len(self.spans))
        for _ in range(epochs):
            next(self.orders)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = next(self.orders)[0]
        first, self.first = self.first, 0
        for start, end in itertools.islice(self.spans, first, None):
            yield self.x[order[start:end]], self.y[order[start:end]]


def _put_back(model: nn.Module, checkpoints: Mapping[int, State] | None, step: int) -> None:
    if checkpoints is None or step not in checkpoints:
        raise InputError(f"weight-rewind needs the weights after step {step}: train with states=States([{step}]) first")
    try:
        model.load_state_dict(checkpoints[step])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"the checkpoint of step {step} does not fit the model: {error}") from error


def _remind(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer a memory, but leave it its rates: the schedule may have changed those in the state."""
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(copy.deepcopy(dict(state)))  # which would share its tensors
    except (ValueError, KeyError) as error:
        raise InputError(f"optimizer_state does not fit the optimizer: {error}") from error
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _by_step(schedule: Any, optimizer: Any, steps: int, per_epoch: int | None) -> Schedule | None:
    """The schedule as a function of the step; one of torch's is gone through once, an epoch at a time."""
    kind = schedule.func if isinstance(schedule, functools.partial) else schedule
    if not isinstance(kind, type) or not issubclass(kind, LRScheduler):
        if schedule is not None and not callable(schedule):
            raise InputError(
                "schedule must be a function of the step, or what makes one of torch's schedulers: a standing "
                f"{type(schedule).__name__} belongs to another optimizer"
            )
        return schedule
    if issubclass(kind, ReduceLROnPlateau) or per_epoch is None:
        what = "a loader that does not know its length" if per_epoch is None else "a rate that follows a measurement"
        raise InputError(f"{what} cannot be repeated: give the schedule as a function of the step")
    updater = optimizer([nn.Parameter(torch.zeros(1))])
    rate = updater.param_groups[0]["lr"]
    scheduler, factors = schedule(updater), []
    for _ in range(-(-steps // per_epoch)):
        factors.append(updater.param_groups[0]["lr"] / rate)
        updater.step()
        scheduler.step()
    return lambda step: factors[step // per_epoch]


def _nothing(model: nn.Module) -> Fit:
    import numpy
    import xarray

    history = xarray.Dataset({"loss": ("step", numpy.empty(0))}, {"step": numpy.empty(0, dtype=int)})
    return Fit(model, history, States(at=()), xarray.Dataset())
