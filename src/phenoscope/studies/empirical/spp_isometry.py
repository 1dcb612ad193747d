"""Signal propagation and pruning at initialization (Lee, Ajanthan, Gould, Torr, ICLR 2020)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from ... import measure, models, prune, train
from ...lab import Study, not_applicable
from ...stats import spearman
from ..benches import pruned_digits as bench

if TYPE_CHECKING:
    import plotly.graph_objects

DENSITY = 0.1
INITS: dict[str, Callable[..., None]] = {
    "isometric": models.init_orthogonal,
    "Gaussian, variance x 0.5": functools.partial(models.init_gaussian, sigma_w2=0.5),
    "Gaussian, variance x 1": functools.partial(models.init_gaussian, sigma_w2=1.0),
    "Gaussian, variance x 2": functools.partial(models.init_gaussian, sigma_w2=2.0),
}
ARMS = ("dense", "pruned", "enforced", "rescaled")
SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
EARLY, EVERY = 100, 50  # steps: when losses are compared, how often they are looked at
LOOKED_AT = 100  # test examples of which singular values are taken

deep_tanh = functools.partial(models.mlp, width=100, depth=7, activation="tanh")
deep_linear = functools.partial(models.mlp, width=100, depth=7, activation="identity")
four_layers = functools.partial(models.mlp, width=50, depth=3, activation="tanh")

study = Study(
    "spp-isometry",
    smoke=dict(model=four_layers, linear=None, enforce_steps=60, steps=60, seeds=2),
    gpu=dict(seeds=20, steps=5000),
)


@study.experiment
def experiment(
    lab,
    *,
    model=deep_tanh,
    linear=deep_linear,
    dataset=bench.digits,
    batch: int = 250,
    enforce_steps: int = 1000,
    steps: int = 600,
    seeds: int = 5,
) -> xr.Dataset:
    """Prunes deep networks by SNIP from four initializations, repairs what is left in two ways, and trains all.

    Args:
        model: factory of the tanh network.
        linear: factory of a network of the same shape without activations; none leaves it out.
        dataset: factory of the data.
        batch: examples that SNIP scores on, equally many of every class.
        enforce_steps: of the repair, at most, for each layer.
        steps: updates of each training, of 64 examples.
        seeds: repetitions, each with a split, networks and an order of its own.
    """
    nets = {"tanh": model} | ({} if linear is None else {"linear": linear})
    common = dict(dataset=dataset, batch=batch, enforce_steps=enforce_steps, steps=steps)
    cells = [dict(model=factory, seed=seed, **common) for factory in nets.values() for seed in range(seeds)]
    found = iter(lab.map(one_seed, cells))
    by_net = [xr.concat([next(found) for _ in range(seeds)], "seed") for _ in nets]
    return xr.concat(by_net, "net").assign_coords(net=list(nets), seed=range(seeds))


def one_seed(lab, *, model, dataset, batch, enforce_steps, steps, seed) -> xr.Dataset:
    """All initializations and arms of one network, trained as one fleet on batches in the same order."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    sample = bench.balanced(split.train, batch, len(split.classes), generator=lab.seed("batch", seed))
    networks, masks, errors = [], [], []
    for name, init in INITS.items():
        dense = copy.deepcopy(network)
        init(dense, generator=lab.seed("weights", name, seed))
        kept = prune.snip(dense, functional.cross_entropy, sample, density=DENSITY)
        cut = kept.apply_(copy.deepcopy(dense))
        enforced = prune.enforce_isometry(dense, kept, steps=enforce_steps).network(dense)
        networks += [dense, cut, enforced, rescaled(cut)]
        masks += [None, kept, kept, kept]
        arms = zip(networks[-4:], masks[-4:], strict=True)
        errors += [float(prune.isometry_error(each, mask).error.mean()) for each, mask in arms]
    seen = [singular_values(each, split.test[0][:LOOKED_AT]) for each in networks]
    looks = sorted({*range(0, steps + 1, EVERY), steps})
    trained = train.fleet(
        networks, split.train, steps=steps, optimizer=SGD, batch_size=bench.BATCH, masks=masks,
        generator=[lab.seed("order", seed)] * len(networks),
        watch=train.Watch({"loss": functools.partial(mean_loss, part=split.train)}, at=looks),
    )  # fmt: skip
    grid = (len(INITS), len(ARMS))
    cells = {name: (("init", "arm"), np.reshape([each[name] for each in seen], grid)) for name in seen[0]}
    loss = trained.watched.loss.transpose("member", "step").values.reshape(*grid, -1)
    return xr.Dataset(
        {
            **cells,
            "layer_error": (("init", "arm"), np.reshape(errors, grid)),
            "loss": (("init", "arm", "step"), loss),
            "accuracy": (("init", "arm"), trained.accuracy(split.test).cpu().numpy().reshape(grid)),
        },
        {"init": list(INITS), "arm": list(ARMS), "step": looks},
    )


def rescaled(network: nn.Module) -> nn.Module:
    """A copy with one factor on each layer, so that the mean square of its singular values is 1: their spread stays."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name in prune.Masks.ones(network):
            weight = network.get_parameter(name)
            size = weight.norm()
            if size > 0:
                weight.mul_(min(weight.flatten(1).shape) ** 0.5 / size)
    return network


def singular_values(network: nn.Module, x: Tensor) -> dict[str, float]:
    """Of the derivative of logits by inputs: mean, worst ratio of largest to smallest, share above 0.001."""
    values = measure.jacobian_singular_values(network, x)
    condition = values[:, 0] / values[:, -1]
    return {
        "mean_singular_value": float(values.mean()),
        "worst_condition": float(condition.max()),
        "share_of_living": float((values > 1e-3).double().mean()),
    }


def mean_loss(model: nn.Module, *, part: bench.Pair) -> Tensor:
    return functional.cross_entropy(model(part[0]), part[1])


@study.claim("pruning-breaks-enforcement-restores-gap")
def imbalance_removed(result: xr.Dataset) -> xr.DataArray:
    imbalance = log_gain(result).sel(init="isometric", drop=True)
    return imbalance.sel(arm="pruned", drop=True) - imbalance.sel(arm="enforced", drop=True)


@study.claim("pruning-breaks-enforcement-restores-level")
def level_after_repair(result: xr.Dataset) -> xr.DataArray:
    values = np.log(result.mean_singular_value.sel(net="tanh", init="isometric", drop=True)) / np.log(3)
    return (values.sel(arm="enforced", drop=True) - values.sel(arm="dense", drop=True)).mean("seed")


@study.claim("trains-faster")
def loss_saved(result: xr.Dataset) -> xr.DataArray:
    if EARLY not in result.step:
        return not_applicable(f"fewer than {EARLY} steps were trained")
    loss = np.log(result.loss.sel(net="tanh", init="isometric", step=EARLY, drop=True))
    return loss.sel(arm="pruned", drop=True) - loss.sel(arm="enforced", drop=True)


@study.claim("jsv-predicts-trainability")
def imbalance_against_loss(result: xr.Dataset) -> xr.DataArray:
    if EARLY not in result.step:
        return not_applicable(f"fewer than {EARLY} steps were trained")
    loss = result.loss.sel(net="tanh", step=EARLY, drop=True)
    cells = [
        each.sel(arm=["pruned", "enforced"]).mean("seed").stack(cell=("init", "arm")).drop_vars(["cell", "init", "arm"])
        for each in (log_gain(result), loss)
    ]
    return spearman(*cells, dim="cell")


def log_gain(result: xr.Dataset) -> xr.DataArray:
    """How far the mean singular value of the tanh network is from 1, up or down: |ln|."""
    return abs(np.log(result.mean_singular_value.sel(net="tanh", drop=True)))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Training loss of the tanh network; loss after 100 steps by mean singular value, for all initializations."""
    from plotly.subplots import make_subplots

    titles = ("training loss, isometric start", "loss after some steps, every start")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles)
    colors = ("rgb(60, 60, 60)", "rgb(214, 104, 44)", "rgb(46, 124, 196)", "rgb(122, 92, 170)")
    tanh = result.sel(net="tanh")
    early = tanh.loss.sel(step=min(EARLY, int(result.step[-1])), method="nearest").mean("seed")
    for arm, color in zip(result.arm.values, colors, strict=True):
        shown = {"name": str(arm), "legendgroup": str(arm)}
        curve = tanh.loss.sel(init="isometric", arm=arm).mean("seed")
        drawing.add_scatter(x=curve.step, y=curve, mode="lines", line={"color": color}, row=1, col=1, **shown)
        drawing.add_scatter(
            x=tanh.mean_singular_value.sel(arm=arm).mean("seed"), y=early.sel(arm=arm), mode="markers",
            text=result.init.values, marker={"color": color, "size": 9}, showlegend=False, row=1, col=2, **shown,
        )  # fmt: skip
    drawing.update_xaxes(title_text="step", col=1)
    drawing.update_xaxes(title_text="mean singular value before training", type="log", col=2)
    drawing.update_yaxes(title_text="training loss", col=1)
    return drawing
