"""Batch sizes compared, each at its own best learning rate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import child_seeds
from ...train import Fleet, fleet, step_decay
from ...train.schedule import Schedule

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]


def halving(steps: int) -> Schedule:
    """Constant for half of the training, then halved at the start of each of ten equal parts of the rest."""
    return step_decay(steps, at=[0.5 + part / 20 for part in range(10)], factor=0.5)


def batch_size_sweep(
    make_model: Callable[..., nn.Module],
    train: Pair,
    validation: Pair,
    test: Pair,
    *,
    batch_sizes: Sequence[int],
    lrs: Sequence[float],
    optimizer: Callable[..., torch.optim.Optimizer],
    steps: int | None = None,
    epochs: int | None = None,
    schedule: Callable[[int], Schedule] | None = halving,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    repeats: int = 5,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train at every batch size and learning rate, and compare batch sizes at the rate that suits each.

    The comparison of Smith, Elsen and De, "On the Generalization Benefit of Noise in Stochastic Gradient Descent" (ICML
    2020, sections 2 and 3), either at an equal number of updates (`steps`) or of passes through the data (`epochs`).
    The best rate of a batch size has the highest validation accuracy, averaged over repetitions; if it lies at an end
    of the grid, the grid is extended there, once, by two more rates in the ratio of its last two. Examples are drawn
    without replacement within an epoch; the full batch is descent without noise. A training whose loss is not finite in
    the end counts as chance. All rates and repetitions of a batch size train as one fleet; the networks of a repetition
    start alike at every batch size and rate.

    Args:
        make_model: a network factory.
        train: what the networks are trained on.
        validation: what rates are chosen on.
        test: what batch sizes are compared on.
        batch_sizes: none larger than the training set; that size is the full batch.
        lrs: learning rates, ascending, best in equal ratios.
        optimizer: a factory from parameters, such as `functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)`; the
            rate it names does not matter.
        steps: updates of each training; or
        epochs: passes through the data. Exactly one of the two.
        schedule: makes a schedule of the number of steps, as `train.cosine` does; by default that of the paper:
            constant for one half, then halved ten times at equal distances. `None` is a constant rate.
        loss_fn: from outputs and labels to their mean loss.
        repeats: networks at each batch size and rate.
        generator: what networks and orders are drawn from.
        device: where to train.

    Returns:
        Over `batch`, `lr` and `repeat` (NaN where a rate was not tried): `validation_accuracy`, `test_accuracy` and
        `training_loss`, of the whole training set in the end. Over `batch`: `best_lr`, so that the scores to compare
        are `found.sel(lr=found.best_lr)`; `grid_edge`, whether it still lies at an end of the extended grid;
        `interpolated_lr`, the top of the parabola in log rate through it and its neighbors; `temperature`,
        best_lr / (batch (1 - momentum)). And `crossover`: the batch size up to which the best rate grows in proportion
        and beyond which it stays, by least squares in logarithms.

    Raises:
        InputError: no batch sizes or rates, a batch larger than the training set, rates that do not ascend, no
            repetitions, or not exactly one of steps and epochs.
    """
    import xarray

    sizes, grid = tuple(int(size) for size in batch_sizes), tuple(float(lr) for lr in lrs)
    if not sizes or min(sizes) < 1 or max(sizes) > len(train[0]) or len(set(sizes)) < len(sizes):
        raise InputError(f"batch sizes must be different, from 1 to the {len(train[0])} training examples, not {sizes}")
    if not grid or grid[0] <= 0 or any(a >= b for a, b in itertools.pairwise(grid)):
        raise InputError(f"lrs must be positive and ascend, not {grid}")
    if repeats < 1 or (steps is None) == (epochs is None):
        raise InputError("at least one repetition is needed, and either steps or epochs")
    seeds = child_seeds(generator, repeats)

    def run(size: int, rates: Sequence[float]) -> xarray.Dataset:
        total = steps if steps is not None else (epochs or 0) * -(-len(train[0]) // size)
        trained = fleet(
            make_model, train, members=len(rates) * repeats, steps=total, optimizer=optimizer,
            lr=[rate for rate in rates for _ in seeds], loss_fn=loss_fn,
            batch_size=None if size == len(train[0]) else size, schedule=schedule(total) if schedule else None,
            generator=seeds * len(rates), device=device,
            num_classes=1 + int(max(part[1].max() for part in (train, validation, test))),
        )  # fmt: skip
        found = scored(trained, train, validation, test, loss_fn)
        variables = {name: (("lr", "repeat"), value.view(len(rates), repeats)) for name, value in found.items()}
        return xarray.Dataset(variables, {"lr": list(rates), "repeat": np.arange(repeats)})

    rows = []
    for size in sizes:
        row = run(size, grid)
        more = beyond(row.validation_accuracy.mean("repeat"))
        rows.append(xarray.concat([row, run(size, more)], "lr").sortby("lr") if more else row)
    found = xarray.concat(rows, xarray.IndexVariable("batch", list(sizes)), join="outer")
    momentum = float(optimizer([nn.Parameter(torch.zeros(1))]).defaults.get("momentum", 0.0))
    return found.merge(choices(found.validation_accuracy.mean("repeat"), momentum=momentum))


def scored(
    trained: Fleet, train: Pair, validation: Pair, test: Pair, loss_fn: Callable[[Any, Any], Tensor]
) -> dict[str, Tensor]:
    """Accuracies and the training loss of every member; chance and infinity where the loss is not finite."""
    x, y = train
    outputs = trained.outputs(x).double()
    loss = torch.stack([loss_fn(each, y.to(each.device)) for each in outputs]).detach().cpu()
    lost = ~loss.isfinite()
    found = {}
    for name, part in (("validation_accuracy", validation), ("test_accuracy", test)):
        found[name] = trained.accuracy(part).cpu().masked_fill(lost, 1 / outputs.shape[-1])
    return found | {"training_loss": loss.masked_fill(lost, float("inf"))}


def beyond(curve: xarray.DataArray) -> list[float]:
    """Two more rates on the side where the best one is at the end of the grid; none if it is not."""
    lrs = curve.lr.values
    place = int(curve.values.argmax())
    if len(lrs) < 2 or 0 < place < len(lrs) - 1:
        return []
    near, next_ = (lrs[0], lrs[1]) if place == 0 else (lrs[-1], lrs[-2])
    return sorted(float(near * (near / next_) ** power) for power in (1, 2))


def choices(mean: xarray.DataArray, *, momentum: float) -> xarray.Dataset:
    """What the mean validation accuracy, by batch and rate, says about each batch size."""
    import xarray

    best, edge, interpolated = [], [], []
    for size in mean.batch.values:
        curve = mean.sel(batch=size).dropna("lr")
        place = int(curve.values.argmax())
        best.append(float(curve.lr[place]))
        edge.append(place in (0, curve.size - 1))
        interpolated.append(best[-1] if edge[-1] else top(curve.lr.values, curve.values, place))
    sizes, rates = mean.batch.values.astype(float), np.array(best)
    return xarray.Dataset(
        {
            "best_lr": ("batch", rates),
            "grid_edge": ("batch", edge),
            "interpolated_lr": ("batch", interpolated),
            "temperature": ("batch", rates / (sizes * (1 - momentum))),
            "crossover": crossover(sizes, rates),
        },
        {"batch": mean.batch.values},
    )


def top(lrs: np.ndarray, values: np.ndarray, place: int) -> float:
    """The rate at the top of the parabola in log rate through a largest value and its two neighbors."""
    near = slice(place - 1, place + 2)
    square, slope, _ = np.polyfit(np.log(lrs[near] / lrs[place]), values[near], 2)
    return float(lrs[place] * np.exp(-slope / (2 * square))) if square < 0 else float(lrs[place])


def crossover(sizes: np.ndarray, rates: np.ndarray) -> float:
    """The knee of log rate = a + min(log size, log knee), by least squares over a fine grid of knees."""
    x, y = np.log2(sizes), np.log2(rates)
    knees = np.linspace(x.min(), x.max(), 1001)
    shapes = np.minimum(x, knees[:, None])
    rest = y - shapes
    return float(2 ** knees[rest.var(axis=1).argmin()])
