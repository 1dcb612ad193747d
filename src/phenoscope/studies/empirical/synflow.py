"""SynFlow: prune without data by conserving synaptic flow (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch import nn
from torch.nn import functional

from ... import data, models, prune
from ...lab import Study, not_applicable
from ..benches import pruned_digits as bench

if TYPE_CHECKING:
    import plotly.graph_objects

    from ...prune import Masks

ARMS = ("synflow", "random", "magnitude", "snip")
PRUNERS = ("synflow", "synflow, once", "random", "magnitude", "snip", "grasp")
NEAR = 0.8  # of the largest compression that leaves a weight in every layer

unbalanced = functools.partial(models.mlp, width=(512, 512, 16), init="he")
small_vgg = functools.partial(models.vgg, depth=11, blocks=4, width=0.25, norm="batch")
small_shapes = functools.partial(data.shapes, train=400, test=50, size=16, radius=(3.0, 5.0))

study = Study(
    "synflow",
    smoke=dict(
        densities=(0.01,), steps=150, seeds=2, iterations=20, collapse_seeds=1, deep=None,
        wide=functools.partial(models.mlp, width=(128, 128, 8)),
    ),
    gpu=dict(
        seeds=20, steps=5000, collapse_seeds=10,
        deep=functools.partial(models.vgg, depth=16, norm="batch"), images=functools.partial(data.shapes, size=32),
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    densities: tuple[float, ...] = (0.05, 0.02, 0.01, 0.005),
    wide=unbalanced,
    deep=small_vgg,
    images=small_shapes,
    batch: int = 250,
    iterations: int = 100,
    steps: int = 1200,
    seeds: int = 5,
    collapse_seeds: int = 3,
) -> xr.Dataset:
    """Finds the compression at which pruners empty a layer; prunes before training in four ways, trains and tests.

    Args:
        model: factory of the network that is trained.
        dataset: factory of the data.
        densities: shares of the weights to keep for training.
        wide: factory of a network with layers of very different width, looked at for empty layers only.
        deep: factory of a convolutional network looked at in the same way; none leaves it out.
        images: factory of the images whose shape the convolutional network takes.
        batch: examples that SNIP and GraSP score on, equally many of every class.
        iterations: of SynFlow.
        steps: updates of each training, of 64 examples.
        seeds: repetitions of the training, each with a split, a network and an order of its own.
        collapse_seeds: repetitions of the search for empty layers.
    """
    common = dict(batch=batch, iterations=iterations)
    nets = {"wide": (wide, dataset)} | ({} if deep is None else {"deep": (deep, images)})
    cells = [
        dict(name=name, model=factory, dataset=source, seed=seed, **common)
        for name, (factory, source) in nets.items()
        for seed in range(collapse_seeds)
    ]
    found = iter(lab.map(emptiest_layers, cells))
    collapse = xr.concat(
        [xr.concat([next(found) for _ in range(collapse_seeds)], "collapse_seed") for _ in nets], "net"
    )
    trained = lab.map(
        one_seed,
        [
            dict(model=model, dataset=dataset, densities=densities, steps=steps, seed=seed, **common)
            for seed in range(seeds)
        ],
    )
    result = xr.concat(trained, "seed").assign_coords(seed=range(seeds))
    return result.merge(collapse.assign_coords(net=list(nets), collapse_seed=range(collapse_seeds)))


def emptiest_layers(lab, *, name, model, dataset, batch, iterations, seed) -> xr.Dataset:
    """Weights that the emptiest layer keeps, by pruner and compression; nothing is trained."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    sample = bench.balanced(split.train, batch, len(split.classes), generator=lab.seed("batch", seed))
    limit = float(prune.layer_collapse(prune.Masks.ones(network)).max_compression)
    compressions = 10 ** np.arange(0, np.log10(limit), 0.5)

    def emptiest(pruner: str, compression: float) -> int:
        generator = lab.seed("collapse", name, seed, compression)
        masks = pruned(network, pruner, sample, 1 / compression, iterations=iterations, generator=generator)
        return min(masks.counts.values())

    kept = [[emptiest(pruner, compression) for compression in compressions] for pruner in PRUNERS]
    return xr.Dataset(
        {
            "emptiest": (("pruner", "compression"), np.array(kept, dtype=float)),
            "emptiest_near_limit": emptiest("synflow", NEAR * limit),
            "limit": limit,
        },
        {"pruner": list(PRUNERS), "compression": compressions},
    )


def one_seed(lab, *, model, dataset, densities, batch, iterations, steps, seed) -> xr.Dataset:
    """All arms and densities from one initialization, trained as one fleet; the whole network among them."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    sample = bench.balanced(split.train, batch, len(split.classes), generator=lab.seed("batch", seed))
    masks = [
        pruned(network, arm, sample, density, iterations=iterations, generator=lab.seed("mask", seed, density))
        for arm in ARMS
        for density in densities
    ]
    dense, *accuracy = bench.accuracies(lab, network, split, [None, *masks], steps=steps, seed=seed)
    grid = (len(ARMS), len(densities))
    kept = [[float(mask.float().mean()) for mask in each.values()] for each in masks]
    return xr.Dataset(
        {
            "dense_accuracy": dense,
            "accuracy": (("arm", "density"), np.reshape(accuracy, grid)),
            "layer_density": (("arm", "density", "layer"), np.reshape(kept, (*grid, -1))),
        },
        {"arm": list(ARMS), "density": list(densities), "layer": list(masks[0])},
    )


def pruned(
    network: nn.Module, pruner: str, sample: bench.Pair, density: float, *, iterations: int, generator: int
) -> Masks:
    """Masks of one pruner; all rank the weights of all layers together."""
    if density == 1:
        return prune.Masks.ones(network)
    if pruner == "random":
        return bench.random_masks(network, density, generator=generator)
    if pruner == "magnitude":
        return prune.one_shot(network, density=density)
    if pruner in ("snip", "grasp"):
        scorer = prune.snip if pruner == "snip" else prune.grasp
        return scorer(network, functional.cross_entropy, sample, density=density)
    times = 1 if pruner == "synflow, once" else iterations
    return prune.synflow(network, shape=sample[0].shape[1:], density=density, iterations=times)


@study.claim("no-layer-collapse-synflow")
def weights_near_the_limit(result: xr.Dataset) -> xr.DataArray:
    return result.emptiest_near_limit.min()


@study.claim("no-layer-collapse-baselines")
def first_collapse(result: xr.Dataset) -> xr.DataArray:
    empty = result.emptiest.sel(pruner=["snip", "grasp", "magnitude"]) == 0
    first = result.compression.where(empty).min(["pruner", "compression"]).fillna(np.inf)
    return (first / result.limit).max()


@study.claim("extreme-sparsity-accuracy")
def accuracy_above_random(result: xr.Dataset) -> xr.DataArray:
    if 0.01 not in result.density:
        return not_applicable("density 0.01 was not run")
    at = result.accuracy.sel(density=0.01, drop=True)
    return at.sel(arm="synflow", drop=True) - at.sel(arm="random", drop=True)


@study.claim("iteration-is-needed")
def gained_by_iteration(result: xr.Dataset) -> xr.DataArray:
    critical = log_critical(result).sel(net="wide", drop=True).mean("collapse_seed")
    return critical.sel(pruner="synflow", drop=True) - critical.sel(pruner="synflow, once", drop=True)


def log_critical(result: xr.Dataset) -> xr.DataArray:
    """log10 of the largest compression of the grid at which no layer is empty."""
    return np.log10(result.compression.where(result.emptiest >= 1).max("compression"))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test accuracy by density; how far each pruner compresses a network before a layer is empty."""
    from plotly.subplots import make_subplots

    titles = ("test accuracy", "compression before a layer is empty")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles)
    colors = ("rgb(46, 124, 196)", "rgb(120, 120, 120)", "rgb(214, 104, 44)", "rgb(122, 92, 170)")
    for arm, color in zip(result.arm.values, colors, strict=True):
        one = result.accuracy.sel(arm=arm)
        drawing.add_scatter(
            x=one.density, y=one.mean("seed"), mode="lines+markers", name=str(arm), line={"color": color},
            error_y={"type": "data", "array": one.std("seed").values, "thickness": 1}, row=1, col=1,
        )  # fmt: skip
    drawing.add_hline(y=float(result.dense_accuracy.mean()), line_dash="dot", annotation_text="all weights", col=1)
    critical = 10 ** log_critical(result).mean("collapse_seed")
    for net, shade in zip(result.net.values, ("rgb(70, 70, 70)", "rgb(170, 170, 170)"), strict=False):
        limit = float(result.limit.sel(net=net).mean())
        drawing.add_bar(
            x=[*result.pruner.values, "limit"], y=[*critical.sel(net=net).values, limit],
            name=f"{net} network", marker_color=shade, row=1, col=2,
        )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="share of weights kept", tickvals=result.density.values, col=1)
    drawing.update_yaxes(type="log", col=2)
    return drawing
