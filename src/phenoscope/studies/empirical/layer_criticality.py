"""Are all layers created equal? (Zhang, Bengio, Singer, ICML 2019 workshop; JMLR 2022): one layer is put back."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import xarray as xr

from ... import data, measure, models, train
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

WIDTH, NARROW, WIDE = 256, 32, 512
SGD = functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9)
digits = functools.partial(data.digits, train=1000)
mlp = functools.partial(models.mlp, depth=5)

study = Study(
    "layer-criticality",
    smoke=dict(model=functools.partial(models.mlp, depth=2), widths=(32, 256), steps=150, checkpoints=(0, 50), seeds=2),
    gpu=dict(widths=(NARROW, 64, 128, WIDTH, WIDE, 1024), steps=10_000, checkpoints=(0, 50, 300, 1500), seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=digits,
    widths: tuple[int, ...] = (NARROW, WIDTH, WIDE),
    steps: int = 1500,
    checkpoints: tuple[int, ...] = (0, 50, 300),
    repeats: int = 3,
    seeds: int = 5,
) -> xr.Dataset:
    """Trains networks, then puts one layer of each back to what it was, or gives it new random values, and tests them.

    Args:
        model: the network's factory; it takes `width`.
        dataset: factory of the data.
        widths: of the hidden layers.
        steps: updates of a training, of 64 examples each.
        checkpoints: steps whose values a layer gets back; the last step is among them in any case.
        repeats: new random values of a layer.
        seeds: networks of each width, each with a split of its own.
    """
    at = tuple(sorted({0, steps, *(step for step in checkpoints if step < steps)}))
    common = dict(model=model, dataset=dataset, steps=steps, at=at, repeats=repeats)
    cells = [dict(width=width, seed=seed, **common) for width in sorted(widths, reverse=True) for seed in range(seeds)]
    found = [one.expand_dims(["width", "seed"]) for one in lab.map(one_network, cells)]
    together = xr.combine_by_coords(found, combine_attrs="drop")
    assert isinstance(together, xr.Dataset)
    return together


def one_network(lab, *, model, dataset, width, seed, steps, at, repeats) -> xr.Dataset:
    """One network: its training with the states kept, and every layer of it put back."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    make_model = functools.partial(
        train.build, model, shape=split.train[0].shape[1:], num_classes=len(split.classes), width=width
    )
    network = make_model(generator=lab.seed("network", seed)).to(lab.device)
    trained = train.fit(
        network, split.train, steps=steps, optimizer=SGD, batch_size=64, states=train.States(at=at),
        generator=lab.seed("order", seed),
    )  # fmt: skip
    found = measure.layer_criticality(
        network, trained.states, split.test, make_model=make_model, repeats=repeats, generator=lab.seed("redraw", seed)
    )
    return found.assign_coords(width=width, seed=seed)


@study.claim("heterogeneous-layers-size")
def heterogeneity(result: xr.Dataset) -> xr.DataArray:
    found = largest_above_inner(result)
    return found if "not_applicable" in found.attrs else found.mean("seed")


@study.claim(
    "heterogeneous-layers-sign",
    note="All five seeds have a positive difference, but one is over three times as large as the others: Student's "
    "interval of five values reaches below zero. With `--set seeds=20` it runs from 0.017 to 0.029.",
)
def heterogeneity_by_seed(result: xr.Dataset) -> xr.DataArray:
    return largest_above_inner(result)


@study.claim("reinit-milder-than-rerandom")
def reinit_above_rerandom(result: xr.Dataset) -> xr.DataArray:
    if WIDTH not in result.width:
        return not_applicable(f"width {WIDTH} was not run")
    one = result.sel(width=WIDTH, drop=True)
    return (one.replaced.sel(step=0, drop=True) - one.rerandomized.mean("repeat")).mean("layer")


@study.claim("wider-is-more-ambient")
def narrow_above_wide(result: xr.Dataset) -> xr.DataArray:
    if not {NARROW, WIDE} <= set(result.width.values.tolist()):
        return not_applicable(f"widths {NARROW} and {WIDE} were not run")
    mean = result.criticality.sel(step=0, drop=True).mean("layer")
    return mean.sel(width=NARROW, drop=True) - mean.sel(width=WIDE, drop=True)


def largest_above_inner(result: xr.Dataset) -> xr.DataArray:
    """What the most critical layer costs minus the median of those that are neither first nor last, seed by seed."""
    if WIDTH not in result.width or result.sizes["layer"] < 3:
        return not_applicable(f"width {WIDTH} was not run, or its networks have no layer between first and last")
    cost = result.criticality.sel(width=WIDTH, step=0, drop=True)
    return cost.max("layer") - cost.isel(layer=slice(1, -1)).median("layer")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy with one layer put back, by layer and checkpoint, or redrawn; a panel a width, means over seeds."""
    from plotly.subplots import make_subplots

    widths = result.width.values
    drawing = make_subplots(
        rows=1, cols=len(widths), subplot_titles=[f"width {width}" for width in widths], shared_yaxes=True
    )
    for column, width in enumerate(widths, start=1):
        one = result.sel(width=width)
        rows = {f"step {step}": one.replaced.sel(step=step) for step in one.step.values}
        rows["new random values"] = one.rerandomized.mean("repeat")
        drawing.add_heatmap(
            z=[values.mean("seed").values for values in rows.values()],
            x=one.layer.values.tolist(),
            y=list(rows),
            zmin=0,
            zmax=1,
            colorscale="Viridis",
            texttemplate="%{z:.2f}",
            showscale=column == 1,
            colorbar={"title": "test accuracy"},
            row=1,
            col=column,
        )
    drawing.update_xaxes(title_text="the layer that is put back")
    return drawing
