"""GraSP: prune before training so that the gradient keeps flowing (Wang, Zhang, Grosse, ICLR 2020)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from ... import landscape, prune
from ...lab import Study, not_applicable
from ..benches import pruned_digits as bench
from ..benches import pruned_photos

if TYPE_CHECKING:
    import plotly.graph_objects

ARMS = ("grasp", "snip", "random", "reversed grasp")
TEMPERATURE = 200.0
HELD = 500  # training examples, not used for scoring, that gradients are taken on

study = Study("grasp", smoke=dict(densities=(0.05,), removals=5, steps=150, seeds=2), gpu=dict(seeds=20, steps=5000))


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    densities: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01),
    per_class: int = 10,
    removals: int = 50,
    steps: int = 1200,
    seeds: int = 5,
    photos: str = "",
    photo_epochs: int = 160,
    photo_seeds: int = 3,
) -> xr.Dataset:
    """Prunes a network before training in four ways, looks at the gradient that is left, trains and tests it.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        densities: shares of the weights to keep.
        per_class: examples of every class that weights are scored on.
        removals: random sets of a thousandth of the weights, on which the score's prediction is tested.
        steps: updates of each training, of 64 examples.
        seeds: repetitions, each with a split, a network and an order of its own.
        photos: folder where torchvision keeps CIFAR-10 and CIFAR-100; empty leaves the deep networks out.
        photo_epochs: how often the deep networks go through the photographs.
        photo_seeds: repetitions with each deep network and set of photographs.
    """
    common = dict(
        model=model, dataset=dataset, densities=densities, per_class=per_class, removals=removals, steps=steps
    )
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    result = xr.concat(found, "seed").assign_coords(seed=range(seeds))
    if not photos:
        return result
    deep = pruned_photos.compared(
        lab, dict(grasp=prune.grasp, snip=prune.snip), folder=photos, epochs=photo_epochs, seeds=photo_seeds
    )
    return result.assign(deep_accuracy=deep.rename(arm="deep_arm", seed="photo_seed"))


def one_seed(lab, *, model, dataset, densities, per_class, removals, steps, seed) -> xr.Dataset:
    """All arms and densities from one initialization, trained as one fleet; the whole network among them."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    classes = len(split.classes)
    sample, (x, y) = bench.balanced_and_rest(
        split.train, per_class * classes, classes, generator=lab.seed("batch", seed)
    )
    held = x[:HELD], y[:HELD]
    scores = prune.grasp_scores(network, functional.cross_entropy, sample, temperature=TEMPERATURE)
    masks = {}
    for density in densities:
        masks["grasp", density] = prune.grasp(
            network, functional.cross_entropy, sample, density=density, temperature=TEMPERATURE
        )
        masks["snip", density] = prune.snip(network, functional.cross_entropy, sample, density=density)
        masks["random", density] = bench.random_masks(network, density, generator=lab.seed("mask", seed, density))
        masks["reversed grasp", density] = prune.keep_top(scores, density=density)
    cells = [(arm, density) for arm in ARMS for density in densities]
    dense, *pruned = bench.accuracies(
        lab, network, split, [None, *(masks[cell] for cell in cells)], steps=steps, seed=seed
    )
    predicted, measured = first_order(network, sample, n=removals, generator=lab.seed("removals", seed))
    grid = (len(ARMS), len(densities))
    norms = [bench.gradient_norm(network, masks[cell], held) for cell in cells]
    kept = [[float(mask.float().mean()) for mask in masks[cell].values()] for cell in cells]
    return xr.Dataset(
        {
            "dense_accuracy": dense,
            "accuracy": (("arm", "density"), np.reshape(pruned, grid)),
            "gradient_norm": (("arm", "density"), np.reshape(norms, grid)),
            "dense_gradient_norm": bench.gradient_norm(network, prune.Masks.ones(network), held),
            "layer_density": (("arm", "density", "layer"), np.reshape(kept, (*grid, -1))),
            "predicted": ("removal", predicted),
            "measured": ("removal", measured),
        },
        {"arm": list(ARMS), "density": list(densities), "layer": list(masks[cells[0]])},
    )


def first_order(network: nn.Module, sample: bench.Pair, *, n: int, generator: int) -> tuple[list[float], list[float]]:
    """Relative change of the squared gradient norm when a random thousandth of the weights goes: predicted, measured.

    In float64, because the change is small.
    """
    network = copy.deepcopy(network).double()

    def flattened(outputs, y):
        return functional.cross_entropy(outputs / TEMPERATURE, y)

    def squared_norm(masks: prune.Masks) -> float:
        pruned = masks.apply_(copy.deepcopy(network))
        slope = landscape.loss_gradient(pruned, flattened, sample, names=masks)
        return sum(float(part.square().sum()) for part in slope.values())

    scores = prune.grasp_scores(network, functional.cross_entropy, sample, temperature=TEMPERATURE)
    full, rng = squared_norm(prune.Masks.ones(network)), torch.Generator().manual_seed(generator)
    predicted, measured = [], []
    for _ in range(n):
        drawn = {name: torch.rand(score.shape, generator=rng).to(score.device) for name, score in scores.items()}
        masks = prune.keep_top(drawn, density=0.999)
        predicted.append(2 * sum(float(score[~masks[name]].sum()) for name, score in scores.items()) / full)
        measured.append(squared_norm(masks) / full - 1)
    return predicted, measured


@study.claim("beats-random-sparse")
def accuracy_above_random(result: xr.Dataset) -> xr.DataArray:
    return above(result.accuracy, "random", 0.02)


@study.claim("preserves-gradient-norm-random")
def gradient_above_random(result: xr.Dataset) -> xr.DataArray:
    return above(log_norm(result) / np.log(10), "random", 0.05)


@study.claim("preserves-gradient-norm-snip")
def gradient_above_snip(result: xr.Dataset) -> xr.DataArray:
    return above(log_norm(result), "snip", 0.05)


@study.claim("sign-matters")
def accuracy_above_reversed(result: xr.Dataset) -> xr.DataArray:
    return above(result.accuracy, "reversed grasp", 0.05)


@study.claim("vgg-extreme")
def deep_accuracy_above_snip(result: xr.Dataset) -> xr.DataArray:
    if "deep_accuracy" not in result:
        return not_applicable("no folder of CIFAR-10 and CIFAR-100 was given: --set photos=FOLDER")
    accuracy = result.deep_accuracy.mean(["photos", "network", "photo_seed"])
    return accuracy.sel(deep_arm="grasp", drop=True) - accuracy.sel(deep_arm="snip", drop=True)


def above(values: xr.DataArray, arm: str, density: float) -> xr.DataArray:
    """GraSP minus another arm at a density, seed by seed."""
    if density not in values.density:
        return not_applicable(f"density {density} was not run")
    at = values.sel(density=density, drop=True)
    found = at.sel(arm="grasp", drop=True) - at.sel(arm=arm, drop=True)
    if not bool(np.isfinite(found).all()):
        return not_applicable("no gradient at all reaches the surviving weights of an arm")
    return found


def log_norm(result: xr.Dataset) -> xr.DataArray:
    """Natural logarithm of the gradient norm; NaN where there is no gradient."""
    return np.log(result.gradient_norm.where(result.gradient_norm > 0))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test accuracy and gradient norm by density; what removals do to the gradient, predicted and measured."""
    from plotly.subplots import make_subplots

    titles = ("test accuracy", "gradient norm before training", "squared gradient norm after removals")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    colors = ("rgb(46, 124, 196)", "rgb(122, 92, 170)", "rgb(120, 120, 120)", "rgb(214, 104, 44)")
    for arm, color in zip(result.arm.values, colors, strict=True):
        for column, values in enumerate((result.accuracy, result.gradient_norm), start=1):
            one = values.sel(arm=arm)
            drawing.add_scatter(
                x=one.density, y=one.mean("seed"), mode="lines+markers", name=str(arm), line={"color": color},
                legendgroup=str(arm), showlegend=column == 1, row=1, col=column,
                error_y={"type": "data", "array": one.std("seed").values, "thickness": 1},
            )  # fmt: skip
    for column, value in enumerate((result.dense_accuracy, result.dense_gradient_norm), start=1):
        drawing.add_scatter(
            x=result.density[[0, -1]], y=[float(value.mean())] * 2, mode="lines", name="all weights", row=1, col=column,
            line={"color": "rgb(60, 60, 60)", "dash": "dot"}, legendgroup="all weights", showlegend=column == 1,
        )  # fmt: skip
        drawing.update_xaxes(type="log", title_text="share of weights kept", tickvals=result.density.values, col=column)
    ends = [float(result.predicted.min()), float(result.predicted.max())]
    drawing.add_scatter(
        x=result.predicted.values.ravel(), y=result.measured.values.ravel(), mode="markers", showlegend=False,
        marker={"color": colors[0], "size": 4}, row=1, col=3,
    )  # fmt: skip
    drawing.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": colors[2], "dash": "dot"}, showlegend=False, row=1, col=3
    )
    drawing.update_yaxes(type="log", col=2)
    drawing.update_xaxes(title_text="predicted relative change", col=3)
    drawing.update_yaxes(title_text="measured", col=3)
    return drawing
