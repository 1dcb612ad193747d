"""SNIP: prune once, before training, by connection sensitivity (Lee, Ajanthan, Torr, ICLR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch.nn import functional

from ... import prune
from ...lab import Study, not_applicable
from ..benches import pruned_digits as bench

if TYPE_CHECKING:
    import plotly.graph_objects

ARMS = ("snip", "random", "magnitude", "snip, random labels")

study = Study("snip", smoke=dict(densities=(0.05,), steps=150, seeds=2), gpu=dict(seeds=20, steps=5000))


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    densities: tuple[float, ...] = (0.1, 0.05, 0.02),
    batch: int = 250,
    steps: int = 1200,
    seeds: int = 5,
) -> xr.Dataset:
    """Prunes a network before training in four ways, trains what is left, and tests it beside the whole network.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        densities: shares of the weights to keep.
        batch: examples that connections are scored on, equally many of every class.
        steps: updates of each training, of 64 examples.
        seeds: repetitions, each with a split, a network and an order of its own.
    """
    common = dict(model=model, dataset=dataset, densities=densities, batch=batch, steps=steps)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, densities, batch, steps, seed) -> xr.Dataset:
    """All arms and densities from one initialization, trained as one fleet; the whole network among them."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    x, y = bench.balanced(split.train, batch, len(split.classes), generator=lab.seed("batch", seed))
    permuted = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(lab.seed("labels", seed))).to(y.device)]
    masks = {}
    for density in densities:
        masks["snip", density] = prune.snip(network, functional.cross_entropy, (x, y), density=density)
        masks["random", density] = bench.random_masks(network, density, generator=lab.seed("mask", seed, density))
        masks["magnitude", density] = prune.one_shot(network, density=density)
        masks["snip, random labels", density] = prune.snip(
            network, functional.cross_entropy, (x, permuted), density=density
        )
    # The same once more with blank pixels at zero: standardized they are a constant, and their weights act as biases.
    lowest = split.train[0].min()
    shifted = [prune.snip(network, functional.cross_entropy, (x - lowest, y), density=density) for density in densities]
    cells = [(arm, density) for arm in ARMS for density in densities]
    dense, *pruned = bench.accuracies(
        lab, network, split, [None, *(masks[cell] for cell in cells)], steps=steps, seed=seed
    )
    grid = (len(ARMS), len(densities))
    varying = [bench.share_on_varying_inputs(masks[cell], split.train[0]) for cell in cells]
    layers = list(masks[cells[0]])
    kept = [[float(masks[cell][layer].float().mean()) for layer in layers] for cell in cells]
    return xr.Dataset(
        {
            "dense_accuracy": dense,
            "accuracy": (("arm", "density"), np.reshape(pruned, grid)),
            "varying_share": (("arm", "density"), np.reshape(varying, grid)),
            "varying_share_blank_zero": (
                "density",
                [bench.share_on_varying_inputs(each, split.train[0]) for each in shifted],
            ),
            "layer_density": (("arm", "density", "layer"), np.reshape(kept, (*grid, len(layers)))),
        },
        {"arm": list(ARMS), "density": list(densities), "layer": layers},
    )


@study.claim("beats-random")
def accuracy_above_random(result: xr.Dataset) -> xr.DataArray:
    return above_random(result.accuracy, 0.02)


@study.claim(
    "finds-relevant-inputs",
    note="It depends on where blank pixels stand. Standardized by one mean and one deviation, as in the paper, a blank "
    "pixel of the digits lies 0.8 deviations below zero (of MNIST 0.4): it feeds every unit a constant, as biases do, "
    "and such connections matter to the loss. With blank pixels at zero the same networks keep far more connections to "
    "the pixels that vary than a random mask does (`varying_share_blank_zero` of the result).",
)
def varying_share_above_random(result: xr.Dataset) -> xr.DataArray:
    if bool(result.varying_share.isnull().any()):
        return not_applicable("the first layer has no weight for each input pixel, or none that survives")
    return above_random(result.varying_share, 0.05)


@study.claim("small-accuracy-cost-at-5-percent")
def accuracy_lost(result: xr.Dataset) -> xr.DataArray:
    if 0.1 not in result.density:
        return not_applicable("density 0.1 was not run")
    return result.dense_accuracy - result.accuracy.sel(arm="snip", density=0.1, drop=True)


def above_random(values: xr.DataArray, density: float) -> xr.DataArray:
    """SNIP minus random mask at a density, seed by seed."""
    if density not in values.density:
        return not_applicable(f"density {density} was not run")
    at = values.sel(density=density, drop=True)
    return at.sel(arm="snip", drop=True) - at.sel(arm="random", drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test accuracy by density for every way of pruning, with its spread over seeds; the whole network as a line."""
    import plotly.graph_objects as go

    drawing = go.Figure()
    colors = ("rgb(46, 124, 196)", "rgb(120, 120, 120)", "rgb(214, 104, 44)", "rgb(122, 92, 170)")
    for arm, color in zip(result.arm.values, colors, strict=True):
        values = result.accuracy.sel(arm=arm)
        drawing.add_scatter(
            x=values.density, y=values.mean("seed"), mode="lines+markers", name=str(arm), line={"color": color},
            error_y={"type": "data", "array": values.std("seed").values, "thickness": 1},
        )  # fmt: skip
    drawing.add_hline(y=float(result.dense_accuracy.mean()), line_dash="dot", annotation_text="all weights")
    drawing.update_xaxes(type="log", title_text="share of weights kept", tickvals=result.density.values)
    drawing.update_yaxes(title_text="test accuracy")
    return drawing
