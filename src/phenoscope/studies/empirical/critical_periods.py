"""Critical learning periods: early deficits leave marks that late ones do not (Achille, Rovere, Soatto, ICLR 2019)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import nn

from ... import data, landscape, measure, models, train
from ...lab import Study, not_applicable
from ..benches.pruned_photos import standardized

if TYPE_CHECKING:
    import plotly.graph_objects

LATE = 1500  # the step that claims speak of
SGD = functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=5e-4)
BATCH, EVERY, POINTS = 32, 50, 200  # steps between looks at the Fisher information, and inputs that it is taken on
PHOTO_SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3)
PHOTO_BATCH, DECAY = 128, 0.97  # of the rate, every epoch from the end of the deficit on
COLORS = {"blur": "rgb(214, 104, 44)", "labels": "rgb(46, 124, 196)", "flip": "rgb(120, 120, 120)"}

mnist1d = functools.partial(data.mnist1d, train=2000, test=1500)
mlp = functools.partial(models.mlp, width=(64, 64), init="he")

study = Study(
    "critical-periods",
    smoke=dict(dataset=data.digits, ends=(0, 60), starts=(0, 60), window=30, recovery=120, seeds=2),
    gpu=dict(seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=mnist1d,
    ends: tuple[int, ...] = (0, 150, 300, 600, 1500),
    starts: tuple[int, ...] = (0, 150, 300, 750, 1500),
    window: int = 600,
    recovery: int = 1200,
    seeds: int = 6,
    photos: str = "",
    photo_epochs: int = 100,
    photo_recovery: int = 160,
    photo_seeds: int = 3,
) -> xr.Dataset:
    """Trains under deficits that last until a step, or through a window, and then as long as usual on clean data.

    Args:
        model: the network's factory.
        dataset: factory of the data: signals or images.
        ends: steps until which a deficit lasts from the start of the training.
        starts: steps at which the window of blur begins.
        window: its length in steps.
        recovery: clean steps after every deficit, of 32 examples.
        seeds: repetitions, each with data, a network and an order of its own.
        photos: folder where torchvision keeps CIFAR-10; empty leaves the All-CNN out.
        photo_epochs: how long photographs are degraded.
        photo_recovery: clean epochs after it.
        photo_seeds: repetitions with photographs.
    """
    common = dict(model=model, dataset=dataset, ends=ends, starts=starts, window=window, recovery=recovery)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    result = xr.concat(found, "seed").assign_coords(seed=range(seeds))
    if not photos:
        return result
    cells = [
        dict(folder=photos, epochs=photo_epochs, recovery=photo_recovery, seed=seed) for seed in range(photo_seeds)
    ]
    deep = xr.concat(lab.map(one_photo_network, cells), "photo_seed")
    return result.assign(photo_sensitivity=deep.sensitivity).assign_coords(photo_epochs=photo_epochs)


def one_seed(lab, *, model, dataset, ends, starts, window, recovery, seed) -> xr.Dataset:
    """Deficits until a step (three kinds) and through a window (blur), and the Fisher information without any."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    seeds = dict(generator=lab.seed("network and order", seed), device=lab.device)
    sweep = functools.partial(
        measure.deficit_sweep, model, split.train, split.test, recovery=recovery, optimizer=SGD, batch_size=BATCH,
        **seeds,
    )  # fmt: skip
    kinds = deficits(len(split.classes), generator=lab.seed("names", seed))
    early = [(0, end) for end in ends]
    spells = [(start, start + window) for start in starts]
    blur = sweep(deficits={"blur": kinds.pop("blur")}, windows=list(dict.fromkeys(early + spells)))
    others = sweep(deficits=kinds, windows=early)
    both = [by_window(each, early)[["accuracy", "sensitivity"]] for each in (blur, others)]
    out = xr.concat(both, "deficit").rename(window="end").assign_coords(end=list(ends))
    through = by_window(blur, spells).squeeze("deficit", drop=True).rename(window="start")
    out["control_accuracy"] = by_window(blur, early).control_accuracy.rename(window="end")
    out["window_sensitivity"] = through.sensitivity.assign_coords(start=list(starts))
    return out.merge(fisher(model, split, steps=max(ends) + recovery, **seeds))


def deficits(classes: int, *, generator: int) -> dict[str, functools.partial]:
    """Each maps data to degraded data."""
    return {
        "blur": functools.partial(data.deficit, kind="blur"),
        "labels": functools.partial(data.deficit, kind="labels", classes=classes, generator=generator),
        "flip": functools.partial(data.deficit, kind="flip"),
    }


def by_window(found: xr.Dataset, windows: list[tuple[int, int]]) -> xr.Dataset:
    """These windows of a sweep, in this order, of its one repetition."""
    known = list(zip(found.start.values.tolist(), found.stop.values.tolist(), strict=True))
    return found.isel(window=[known.index(each) for each in windows], repeat=0).drop_vars(["start", "stop"])


def fisher(model, split: data.Split, *, steps: int, generator: int, device: str) -> xr.Dataset:
    """The trace of the Fisher information by layer while training without a deficit."""
    x = split.train[0][:POINTS]
    trace = functools.partial(landscape.fim_trace, data=x, per_layer=True, generator=generator)
    net = train.build(model, shape=tuple(x.shape[1:]), num_classes=len(split.classes), generator=generator).to(device)
    seen = train.fit(
        net, split.train, steps=steps, optimizer=SGD, batch_size=BATCH, generator=generator,
        watch=train.Watch({"fisher": trace}, at=EVERY),
    ).watched  # fmt: skip
    layers = [str(name) for name in landscape.fim_trace(net, x[:1], per_layer=True).layer.values]
    return seen.rename(fisher_0="layer").assign_coords(layer=layers)


def one_photo_network(lab, *, folder, epochs, recovery, seed) -> xr.Dataset:
    """All-CNN on CIFAR-10, degraded for the first epochs; the rate starts anew where the deficit ends."""
    part, test, classes = standardized("CIFAR10", folder, device=lab.device)
    steps = -(-len(part[1]) // PHOTO_BATCH)
    found = measure.deficit_sweep(
        all_cnn, part, test, deficits=deficits(classes, generator=lab.seed("photo names", seed)),
        windows=[(0, epochs * steps)], recovery=recovery * steps, optimizer=PHOTO_SGD, batch_size=PHOTO_BATCH,
        schedule=lambda step: DECAY ** (step // steps), generator=lab.seed("photos", seed), device=lab.device,
    )  # fmt: skip
    return found.isel(window=0, repeat=0, drop=True).rename(deficit="photo_deficit")


def all_cnn(shape, num_classes, *, width: int = 96, generator=None) -> nn.Sequential:
    """All-CNN-C of Springenberg, Dosovitskiy, Brox and Riedmiller (ICLR 2015 workshop), with batch normalization."""
    wide = 2 * width
    plan = [(width, 3, 1), (width, 3, 1), (width, 3, 2), (wide, 3, 1), (wide, 3, 1), (wide, 3, 2), (wide, 3, 1)]
    plan += [(wide, 1, 1), (num_classes, 1, 1)]
    layers: list[nn.Module] = []
    channels = shape[0]
    for out, size, stride in plan:
        layers += [nn.Conv2d(channels, out, size, stride=stride, padding=size // 2), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    network = nn.Sequential(*layers[:-2], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    models.init_gaussian(network, sigma_w2=2.0, generator=generator)
    return network


@study.claim("early-deficit-lasts")
def lasting_loss(result: xr.Dataset) -> xr.DataArray:
    if LATE not in result.end:
        return not_applicable(f"a deficit until step {LATE} was not run")
    return result.sensitivity.sel(deficit="blur", end=LATE, drop=True)


@study.claim("early-worse-than-late")
def early_over_late(result: xr.Dataset) -> xr.DataArray:
    if not {0, LATE} <= set(result.start.values.tolist()):
        return not_applicable(f"windows that begin at steps 0 and {LATE} were not both run")
    early, late = (result.window_sensitivity.sel(start=start, drop=True) for start in (0, LATE))
    return early - late


@study.claim(
    "fisher-rises-and-falls-rise",
    note="With He's initialization, which the last layer has too, a network begins with large and random scores: the "
    "trace is 118 at step 0, falls to 72 within 50 steps, and only then rises to 171. From torch's own, smaller "
    "initialization it rises from 5 to 150 in the same training.",
)
def fisher_peak_over_start(result: xr.Dataset) -> xr.DataArray:
    trace = mean_fisher(result)
    return trace.max() / trace.isel(step=0, drop=True)


@study.claim("fisher-rises-and-falls-fall")
def fisher_peak_over_end(result: xr.Dataset) -> xr.DataArray:
    trace = mean_fisher(result)
    return trace.max() / trace.isel(step=-1, drop=True)


@study.claim("fisher-rises-and-falls-time")
def fisher_peak_time(result: xr.Dataset) -> xr.DataArray:
    trace = mean_fisher(result)
    return xr.DataArray(float(trace.idxmax("step")) / float(trace.step[-1]))


@study.claim("cifar-blur")
def photo_blur(result: xr.Dataset) -> xr.DataArray:
    return photo_loss(result, "blur")


@study.claim("cifar-blur-not-flip")
def photo_flip(result: xr.Dataset) -> xr.DataArray:
    return photo_loss(result, "flip")


@study.claim("cifar-blur-not-labels")
def photo_labels(result: xr.Dataset) -> xr.DataArray:
    return photo_loss(result, "labels")


def mean_fisher(result: xr.Dataset) -> xr.DataArray:
    """The trace over all layers, averaged over seeds."""
    return result.fisher.sum("layer").mean("seed")


def photo_loss(result: xr.Dataset, deficit: str) -> xr.DataArray:
    """Accuracy that a deficit of 100 epochs costs the All-CNN, mean over seeds."""
    if "photo_sensitivity" not in result or int(result.photo_epochs) != 100:
        return not_applicable("photographs were not degraded for 100 epochs: --set photos=FOLDER of CIFAR-10")
    return result.photo_sensitivity.sel(photo_deficit=deficit, drop=True).mean("photo_seed")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy lost by the deficit's end; by the window's start; the Fisher information without a deficit by step."""
    from plotly.subplots import make_subplots

    titles = ("accuracy lost, by the deficit's end", "by the window's start", "Fisher information, no deficit")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    lines = [(str(kind), result.sensitivity.sel(deficit=kind), "end", 1) for kind in result.deficit.values]
    lines.append(("blur", result.window_sensitivity, "start", 2))
    for kind, lost, along, column in lines:
        spread = {"type": "data", "array": lost.std("seed").values, "thickness": 1}
        drawing.add_scatter(
            x=lost[along], y=lost.mean("seed"), mode="lines+markers", name=kind, legendgroup=kind, error_y=spread,
            showlegend=column == 1, line={"color": COLORS[kind]}, row=1, col=column,
        )  # fmt: skip
    layers = result.fisher.mean("seed")
    for place, layer in enumerate(result.layer.values):
        strength = 0.3 + 0.7 * place / max(1, result.sizes["layer"] - 1)
        drawing.add_scatter(
            x=layers.step, y=layers.sel(layer=layer), mode="lines", name=str(layer), stackgroup="layers",
            line={"color": f"rgba(122, 92, 170, {np.round(strength, 2)})"}, row=1, col=3,
        )  # fmt: skip
    for column, title in enumerate(("step at which the deficit ends", "step at which it begins", "step"), start=1):
        drawing.update_xaxes(title_text=title, row=1, col=column)
    return drawing
