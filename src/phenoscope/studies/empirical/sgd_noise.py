"""Noise in stochastic gradient descent helps: small batches against the full one (Smith, Elsen, De, ICML 2020)."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import nn

from ... import data, measure, models
from ...lab import Study, not_applicable
from ...measure.sweeps.batch_size import crossover
from ...models.resnet import Unit
from ..benches import tickets

if TYPE_CHECKING:
    import plotly.graph_objects

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
SMALL, EPOCH_BATCHES = 16, (16, 32, 64, 128)
MODERATE, HUGE = (64, 128, 256), 16384  # of the claims at scale

mnist1d = functools.partial(data.mnist1d, train=1000, validation=1000, test=2400)
mlp = functools.partial(models.mlp, width=(128, 128), init="he")


def wide_resnet(shape, num_classes, *, widen: int = 4, generator=None) -> nn.Module:
    """Wide-ResNet 16 (Zagoruyko and Komodakis, BMVC 2016): three groups of two units of two 3x3 convolutions."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
    channels = 16
    for group, out in enumerate((16 * widen, 32 * widen, 64 * widen)):
        for unit in range(2):
            stride = 2 if group and not unit else 1
            layers[f"unit{group}_{unit}"] = Unit(
                channels, out, out, stride, bottleneck=False, residual=True, make=("relu", "batch")
            )
            channels = out
    layers |= {"norm": nn.BatchNorm2d(channels), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "logits": nn.Linear(channels, num_classes)}
    return nn.Sequential(layers)


def cifar10(*, generator=None) -> data.Split:
    """CIFAR-10, read by torchvision from the folder `data`."""
    return data.from_torchvision("CIFAR10", "data", generator=generator)


study = Study(
    "sgd-noise",
    smoke=dict(
        dataset=functools.partial(data.digits, train=800, validation=200), batches=(16,), lrs=(0.05, 0.2), steps=40,
        seeds=2, epoch_batches=(16, 64), epoch_lrs=(0.02, 0.1), epochs=1, epoch_seeds=2,
    ),
    gpu=dict(batches=(16, 32, 64, 128, 256, 512), steps=4000, seeds=20, epoch_seeds=10, large_seeds=5),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=mnist1d,
    batches: tuple[int, ...] = (16, 64, 256),
    lrs: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4),
    steps: int = 1000,
    seeds: int = 5,
    epoch_batches: tuple[int, ...] = EPOCH_BATCHES,
    epoch_lrs: tuple[float, ...] = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8),
    epochs: int = 40,
    epoch_seeds: int = 3,
    large_model=wide_resnet,
    large_dataset=cifar10,
    large_batches: tuple[int, ...] = (*MODERATE, HUGE),
    large_lrs: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8),
    large_steps: int = 9765,
    large_seeds: int = 0,
) -> xr.Dataset:
    """Trains at several batch sizes and learning rates, for an equal number of updates and of epochs.

    Args:
        model: the network's factory.
        dataset: factory of the data; where they have no validation part, an eighth of the training part becomes it.
        batches: batch sizes at an equal number of updates; the full batch comes on top.
        lrs: learning rates there; where the best is at an end, two more are tried.
        steps: updates.
        seeds: networks at each batch size and rate.
        epoch_batches: batch sizes at an equal number of epochs.
        epoch_lrs: learning rates there.
        epochs: passes through the data.
        epoch_seeds: networks there.
        large_model: factory of the networks at scale.
        large_dataset: their data; CIFAR-10 needs torchvision, and its images are taken as they are.
        large_batches: their batch sizes.
        large_lrs: their learning rates.
        large_steps: their updates.
        large_seeds: how many of them at each batch size and rate; 0 leaves them out.
    """
    common = dict(model=model, dataset=dataset)
    by_steps = dict(lrs=lrs, budget={"steps": steps}, seeds=seeds, **common)
    by_epochs = dict(lrs=epoch_lrs, budget={"epochs": epochs}, seeds=epoch_seeds, **common)
    cells = [dict(batch=batch, **by_steps) for batch in (0, *sorted(batches, reverse=True))]
    cells += [dict(batch=batch, **by_epochs) for batch in epoch_batches]
    found = lab.map(one_batch, cells)
    parts = [("", found[: -len(epoch_batches)]), ("epoch_", found[-len(epoch_batches) :])]
    if large_seeds:
        large = dict(model=large_model, dataset=large_dataset, lrs=large_lrs, budget={"steps": large_steps})
        cells = [dict(batch=batch, seeds=large_seeds, **large) for batch in large_batches]
        parts.append(("large_", lab.map(one_batch, cells)))
    return xr.merge([together(rows, prefix) for prefix, rows in parts], compat="no_conflicts", join="outer")


def one_batch(lab, *, model, dataset, batch, lrs, budget, seeds) -> xr.Dataset:
    """All rates and seeds of a batch size, 0 being the full batch; seeds start alike at all batch sizes."""
    split, make_model = tickets.setting(lab, model=model, dataset=dataset, seed=0)
    assert split.validation is not None  # the bench sees to it
    size = batch or len(split.train[0])
    found = measure.batch_size_sweep(
        make_model, split.train, split.validation, split.test, batch_sizes=(size,), lrs=lrs, optimizer=SGD,
        repeats=seeds, generator=lab.seed("networks"), device=lab.device, **budget,
    )  # fmt: skip
    return found.drop_vars("crossover").assign(samples=len(split.train[0]))


def together(rows: list[xr.Dataset], prefix: str) -> xr.Dataset:
    """The batch sizes of an arm, its names set off by a prefix."""
    found = xr.concat(rows, "batch", data_vars="minimal", join="outer", coords="minimal", compat="equals").sortby(
        "batch"
    )
    found["crossover"] = crossover(found.batch.values.astype(float), found.best_lr.values)
    found = found.rename(repeat="seed")
    return found.rename({name: f"{prefix}{name}" for name in (*found.dims, *found.data_vars)})


@study.claim("small-beats-full-batch")
def accuracy_above_full_batch(result: xr.Dataset) -> xr.DataArray:
    if SMALL not in result.batch:
        return not_applicable("batch 16 was not run")
    tested = at_best(result.test_accuracy, result.best_lr)
    return at(tested, SMALL) - at(tested, int(result.samples))


@study.claim("despite-lower-train-loss")
def loss_below_small_batch(result: xr.Dataset) -> xr.DataArray:
    if SMALL not in result.batch:
        return not_applicable("batch 16 was not run")
    trained = at_best(result.training_loss, result.best_lr)
    return xr.apply_ufunc(np.log10, at(trained, int(result.samples)) / at(trained, SMALL))


@study.claim("lr-scales-with-batch")
def slope_of_best_rate(result: xr.Dataset) -> xr.DataArray:
    if not set(EPOCH_BATCHES) <= set(result.epoch_batch.values.tolist()):
        return not_applicable("not all of the batch sizes 16, 32, 64 and 128 were run")
    rates = result.epoch_interpolated_lr.sel(epoch_batch=list(EPOCH_BATCHES))
    return xr.DataArray(np.polyfit(np.log2(rates.epoch_batch), np.log2(rates), 1)[0])


@study.claim("resnet-gap-size")
def mean_gap_at_scale(result: xr.Dataset) -> xr.DataArray:
    gap = gap_at_scale(result)
    return gap if "not_applicable" in gap.attrs else gap.mean()


@study.claim("resnet-gap-sign")
def gap_at_scale(result: xr.Dataset) -> xr.DataArray:
    if "large_batch" not in result.dims or not {*MODERATE, HUGE} <= set(result.large_batch.values.tolist()):
        return not_applicable("wide residual networks at batches 64, 128, 256 and 16384 were not run")
    tested = at_best(result.large_test_accuracy, result.large_best_lr, prefix="large_")
    moderate = tested.sel(large_batch=list(MODERATE)).mean("large_batch")
    return (moderate - tested.sel(large_batch=HUGE, drop=True)).rename(large_seed="seed")


def at_best(values: xr.DataArray, best: xr.DataArray, *, prefix: str = "") -> xr.DataArray:
    """Over batch and seed: every batch size at its best rate."""
    return values.sel({f"{prefix}lr": best}).drop_vars(f"{prefix}lr")


def at(values: xr.DataArray, batch: int) -> xr.DataArray:
    return values.sel(batch=batch, drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy by rate, a line a batch size; test accuracy and training loss at the best rate; best rate by batch."""
    from plotly.colors import sample_colorscale
    from plotly.subplots import make_subplots

    titles = (
        "validation accuracy, equal updates", "validation accuracy, equal epochs", "at the best rate, equal updates",
        "best rate, equal epochs",
    )  # fmt: skip
    drawing = make_subplots(
        rows=2, cols=2, subplot_titles=titles, specs=[[{}, {}], [{"secondary_y": True}, {}]], vertical_spacing=0.14
    )
    for column, prefix in ((1, ""), (2, "epoch_")):
        curves = result[f"{prefix}validation_accuracy"].mean(f"{prefix}seed")
        sizes = curves[f"{prefix}batch"].values
        colors = sample_colorscale("Viridis", np.linspace(0, 0.85, len(sizes)))
        for size, color in zip(sizes, colors, strict=True):
            one = curves.sel({f"{prefix}batch": size}).dropna(f"{prefix}lr")
            drawing.add_scatter(
                x=one[f"{prefix}lr"], y=one, mode="lines+markers", line={"color": color}, name=f"batch {size}",
                showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    tested, trained = (at_best(result[name], result.best_lr) for name in ("test_accuracy", "training_loss"))
    for values, name, color, second in (
        (tested, "test accuracy", "rgb(46, 124, 196)", False), (trained, "training loss", "rgb(214, 104, 44)", True),
    ):  # fmt: skip
        drawing.add_scatter(
            x=values.batch, y=values.mean("seed"), name=name, mode="lines+markers", line={"color": color},
            error_y={"type": "data", "array": values.std("seed").values, "thickness": 1},
            row=2, col=1, secondary_y=second,
        )  # fmt: skip
    best = result.epoch_interpolated_lr
    drawing.add_scatter(
        x=best.epoch_batch, y=best, mode="lines+markers", name="best rate", line={"color": "rgb(122, 92, 170)"},
        row=2, col=2,
    )  # fmt: skip
    drawing.update_layout(height=680)
    drawing.update_xaxes(type="log")
    drawing.update_xaxes(title_text="learning rate", row=1)
    drawing.update_xaxes(title_text="batch size", row=2)
    drawing.update_yaxes(type="log", row=2, col=1, secondary_y=True)
    drawing.update_yaxes(type="log", row=2, col=2)
    return drawing
