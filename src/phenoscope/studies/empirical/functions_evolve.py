"""How functions evolve: how far the filters of a plain and a residual network move (Hu, Wang, Li, Huang, VCIP 2018)."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, models, record, train
from ...lab import Study, not_applicable
from ...stats import spearman

if TYPE_CHECKING:
    import plotly.graph_objects

RATE, BATCH, EVERY = 2e-4, 64, 10  # as in the paper, which halves the rate after 25 epochs and then every 10
MEASURES = ("changed", "idle", "distance", "distance_per_weight")

digits_32 = functools.partial(data.digits, size=32, channels=3)

study = Study(
    "functions-evolve",
    smoke=dict(seeds=1, width=0.125, epochs=1, residual_epochs=1, draws=2),
    gpu=dict(width=1.0, epochs=40, residual_epochs=40),
)


@study.experiment
def experiment(
    lab,
    *,
    model=models.vgg,
    residual=models.resnet,
    dataset=digits_32,
    width: float = 0.25,
    epochs: int = 12,
    residual_epochs: int = 8,
    share: float = 0.25,
    epsilon: float = 0.05,
    draws: int = 20,
    seeds: int = 3,
) -> xr.Dataset:
    """Records a plain and a residual network while they learn, then zeroes filters of the plain one.

    Args:
        model: the plain network's factory.
        residual: the residual network's factory.
        dataset: factory of the images.
        width: multiplies the channels of both networks.
        epochs: of the plain network.
        residual_epochs: of the residual network.
        share: of a layer's filters that moved least, zeroed.
        epsilon: a filter with a mean idle share of at least 1 - epsilon is redundant.
        draws: random choices that zeroing is compared with.
        seeds: networks of each kind.
    """
    common = dict(dataset=dataset, width=width, share=share, epsilon=epsilon)
    networks = [("plain", model, epochs, draws), ("residual", residual, residual_epochs, 0)]
    cells = [
        dict(network=network, make_model=factory, epochs=count, draws=number, seed=seed, **common)
        for network, factory, count, number in networks
        for seed in range(seeds)
    ]
    found = lab.map(one_network, cells)
    plain, rest = (xr.concat(half, "seed") for half in (found[:seeds], found[seeds:]))
    return xr.concat([plain, rest], "network").assign_coords(network=["plain", "residual"], seed=range(seeds))


def one_network(lab, *, network, make_model, dataset, width, epochs, share, epsilon, draws, seed) -> xr.Dataset:
    """Train, record and ablate one network; its observed layers are numbered by depth."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    net = train.build(
        make_model,
        shape=tuple(split.train[0].shape[1:]),
        num_classes=len(split.classes),
        width=width,
        generator=lab.seed(network, seed),
    ).to(lab.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    halved = torch.optim.lr_scheduler.MultiStepLR(optimizer, range(25, epochs, 10), gamma=0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with record.Recorder(net, path, optimizer=optimizer, every=EVERY) as recorder:
            train.fit(
                net,
                split.train,
                optimizer=optimizer,
                epochs=epochs,
                batch_size=BATCH,
                schedule=halved,
                generator=lab.seed("order", seed),
                log=recorder.log,
            )
        run = record.open_run(path)
        layers = list(observed(run))
        means = run.means.sel(layer=layers)[list(MEASURES)]
        least = record.least_evolved(run, share).only(layers)
        redundant = record.redundant(run, epsilon=epsilon).only(layers)
    evaluate = functools.partial(train.accuracy, data=split.test)
    out = means.mean("step").drop_vars("layer").rename(layer="depth")
    out = out.assign_coords(depth=np.arange(1, len(layers) + 1))
    out["accuracy"] = evaluate(net)
    out["redundant_share"] = "depth", [len(redundant[name]) / len(run.layers[name]) for name in layers]
    lost = np.full((3, len(layers)), np.nan)
    if draws:
        table = record.ablate(net, least, evaluate, repeats=draws, generator=lab.seed("draws", seed)).sel(layer=layers)
        free = record.ablate(net, redundant, evaluate, repeats=1, generator=lab.seed("draws", seed)).sel(layer=layers)
        lost = np.stack([table["drop"], table.random_mean, free["drop"]])
    for name, row in zip(("least_evolved_drop", "random_drop", "redundant_drop"), lost, strict=True):
        out[name] = "depth", row
    return out


def observed(run: record.Run) -> Sequence[str]:
    """The paper's five layers (table III) where the network has them, otherwise five spread over its depth."""
    for paper in (models.VGG16_OBSERVED, models.RESNET50_OBSERVED):
        if all(name in run.layers for name in paper):
            return paper
    names = [name for name in run if run.layers[name].trainable]
    return [names[place] for place in np.unique(np.linspace(0, len(names) - 1, 5).round().astype(int))]


@study.claim(
    "lower-layers-change-more-raw",
    note="A filter of an upper layer has more entries, and the raw distance sums over them: it rises with depth even "
    "where every weight moves less, as the changed share of the same runs shows.",
)
def depth_against_raw_distance(result: xr.Dataset) -> xr.DataArray:
    return depth_correlation(result.distance)


@study.claim("lower-layers-change-more-share")
def depth_against_changed_share(result: xr.Dataset) -> xr.DataArray:
    return depth_correlation(result.changed)


def depth_correlation(measure: xr.DataArray) -> xr.DataArray:
    """Spearman correlation of depth with a measure of the plain network, seed by seed."""
    plain = measure.sel(network="plain")
    return spearman(plain.depth, plain, dim="depth")


@study.claim("residual-less-stratified")
def difference_of_spreads(result: xr.Dataset) -> xr.DataArray:
    if bool((result.changed <= 0).any()):
        return not_applicable("a layer's changed share is zero, so that it has no logarithm")
    spread = np.log(result.changed).std("depth")
    return spread.sel(network="plain", drop=True) - spread.sel(network="residual", drop=True)


@study.claim("least-evolved-are-spare")
def accuracy_spared(result: xr.Dataset) -> xr.DataArray:
    plain = result.sel(network="plain", drop=True)
    return (plain.random_drop - plain.least_evolved_drop).mean("depth")


@study.claim("redundant-filters-free-exist")
def largest_redundant_share(result: xr.Dataset) -> xr.DataArray:
    return result.redundant_share.sel(network="plain", drop=True).max("depth").mean("seed")


@study.claim("redundant-filters-free-drop")
def largest_redundant_drop(result: xr.Dataset) -> xr.DataArray:
    plain = result.sel(network="plain", drop=True)
    some = plain.redundant_share.max("depth") > 0
    if not bool(some.any()):
        return not_applicable("no filter of the observed layers has a mean idle share of at least 0.95")
    return plain.redundant_drop.where(plain.redundant_share > 0).max("depth").where(some, drop=True).mean("seed")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The time-mean measures of the observed layers by depth, both networks; every seed faint, their mean strong."""
    from plotly.subplots import make_subplots

    shown = [
        ("changed", "changed share S"),
        ("distance_per_weight", "distance per weight"),
        ("distance", "raw distance D"),
    ]
    drawing = make_subplots(rows=1, cols=len(shown), subplot_titles=[title for _, title in shown])
    for network, color in (("plain", "rgb(46, 124, 196)"), ("residual", "rgb(214, 104, 44)")):
        for column, (name, _) in enumerate(shown, start=1):
            values = result[name].sel(network=network)
            for seed in values.seed.values:
                drawing.add_scatter(
                    x=values.depth, y=values.sel(seed=seed), mode="lines", line={"color": color, "width": 1},
                    opacity=0.35, showlegend=False, hoverinfo="skip", row=1, col=column,
                )  # fmt: skip
            drawing.add_scatter(
                x=values.depth, y=values.mean("seed"), mode="lines+markers", line={"color": color}, name=network,
                legendgroup=network, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    drawing.update_yaxes(type="log")
    drawing.update_xaxes(title_text="observed layer, by depth", dtick=1)
    return drawing
