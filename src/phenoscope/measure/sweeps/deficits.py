"""Deficits for a window of training: what lasts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ...train import Watch, accuracy, build, fit
from ...train.schedule import Schedule

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]
Window = tuple[int, int]


def deficit_sweep(
    make_model: Callable[..., nn.Module],
    train: Pair,
    test: Pair,
    *,
    deficits: Mapping[str, Callable[[Pair], Pair]],
    windows: Sequence[Window],
    recovery: int,
    optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Schedule | None = None,
    batch_size: int = 64,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    repeats: int = 1,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train under a deficit from one step to another, then on clean data, and see what accuracy is lost for good.

    After Achille, Rovere and Soatto, "Critical Learning Periods in Deep Neural Networks" (ICLR 2019, section 2).
    Whenever a window ends, `recovery` clean steps follow, so that late deficits have no less time to heal; before a
    window data are clean too. The control has no deficit and as many steps in all, and sees the same examples in the
    same order from the same initialization. The optimizer keeps its state throughout.

    Args:
        make_model: a network factory, called through `train.build`.
        train: clean inputs and labels to train on.
        test: what the networks are tested on, always clean.
        deficits: name -> what makes the degraded training data of the clean ones, once, such as
            `functools.partial(data.deficit, kind="blur")`.
        windows: pairs of steps (start, stop); the deficit lasts from `start` to before `stop`.
        recovery: clean steps after a window.
        optimizer: a factory from parameters, such as `functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9)`.
        schedule: of the learning rate during recovery, counted from the window's end; before, and throughout without
            one, the rate is the optimizer's. The control follows the same. A rate that had decayed by the time when
            the deficit ends would itself keep the network from recovering.
        batch_size: examples in a batch.
        loss_fn: from outputs and labels to their mean loss.
        repeats: how many times, each with a network and an order of its own.
        generator: what networks and orders are drawn from.
        device: where to train, by default CUDA if there is one.

    Returns:
        Dimensions `deficit`, `window`, `repeat`, with coordinates `start` and `stop`:

        - `accuracy`: on the test set, at the end.
        - `control_accuracy` (without `deficit`).
        - `sensitivity`: the control's accuracy minus that after the deficit.

    Raises:
        InputError: no deficits or windows, windows that do not start at 0 or later and stop after, deficits that change
            the shape of the data, or no recovery or repetition.
    """
    import numpy
    import xarray

    windows = [(int(start), int(stop)) for start, stop in windows]
    if not deficits or not windows or recovery < 1 or repeats < 1:
        raise InputError("a sweep needs at least one deficit, window, recovery step and repetition")
    for start, stop in windows:
        if not 0 <= start <= stop:
            raise InputError(f"a window lasts from a step to a later one, not from {start} to {stop}")
    degraded = {name: make(train) for name, make in deficits.items()}
    for name, (x, y) in degraded.items():
        if x.shape != train[0].shape or y.shape != train[1].shape:
            raise InputError(f"the deficit {name!r} makes data of another shape")
    classes = None if train[1].is_floating_point() else int(train[1].max()) + 1
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    totals = sorted({stop + recovery for _, stop in windows})

    def trained(seed: int, other: Pair, window: Window, steps: int, watch: Watch | None = None) -> Any:
        model = build(make_model, shape=tuple(train[0].shape[1:]), num_classes=classes, generator=seed).to(where)
        rate = None if schedule is None else (lambda step: schedule(step - window[1]) if step >= window[1] else 1.0)
        feed = _Switching(_on(train, where), _on(other, where), window, batch_size, seed)
        seen = fit(model, feed, steps=steps, optimizer=optimizer, schedule=rate, loss_fn=loss_fn, watch=watch).watched
        return seen, accuracy(model, test)

    found = numpy.empty((len(deficits), len(windows), repeats))
    control = numpy.empty((len(windows), repeats))
    for repeat, seed in enumerate(child_seeds(generator, repeats)):
        if schedule is None:  # the longest control passes by the ends of all
            watch = Watch({"accuracy": lambda model: accuracy(model, test)}, at=totals)
            seen, _ = trained(seed, train, (0, 0), totals[-1], watch)
            ends = {total: float(seen["accuracy"].sel(step=total)) for total in totals}
        else:
            ends = {total: trained(seed, train, (0, total - recovery), total)[1] for total in totals}
        for place, (start, stop) in enumerate(windows):
            total = stop + recovery
            control[place, repeat] = ends[total]
            for number, other in enumerate(degraded.values()):
                whole = start < stop  # without a single step of it the network is the control
                last = trained(seed, other, (start, stop), total)[1] if whole else ends[total]
                found[number, place, repeat] = last
    starts, stops = zip(*windows, strict=True)
    out = xarray.Dataset(
        {
            "accuracy": (("deficit", "window", "repeat"), found),
            "control_accuracy": (("window", "repeat"), control),
        },
        {"deficit": list(deficits), "start": ("window", list(starts)), "stop": ("window", list(stops))},
    )
    return out.assign(sensitivity=out["control_accuracy"] - out["accuracy"])


class _Switching:
    """A loader whose batches are degraded within a window of steps; the order does not depend on the window."""

    def __init__(self, clean: Pair, degraded: Pair, window: Window, batch_size: int, seed: int) -> None:
        self.clean, self.degraded, self.window, self.batch_size = clean, degraded, window, batch_size
        self.generator, self.step = seeded(seed), 0

    def __iter__(self) -> Iterator[Pair]:
        order = torch.randperm(len(self.clean[0]), generator=self.generator)
        for rows in order.to(self.clean[0].device).split(self.batch_size):
            x, y = self.degraded if self.window[0] <= self.step < self.window[1] else self.clean
            self.step += 1
            yield x[rows], y[rows]

    def __len__(self) -> int:
        return -(-len(self.clean[0]) // self.batch_size)


def _on(pair: Pair, device: torch.device) -> Pair:
    return pair[0].to(device), pair[1].to(device)
