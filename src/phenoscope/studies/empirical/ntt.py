"""Neural tangent transfer: sparse networks with a dense one's tangent kernel, no labels (Liu, Zenke, ICML 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ... import models, prune, train
from ...lab import Study, not_applicable
from ...prune.ntt import distances
from ..benches import pruned_digits as bench

if TYPE_CHECKING:
    import plotly.graph_objects

mlp = functools.partial(models.mlp, width=(128, 128), init="he")
ARMS = ("transfer", "random mask", "magnitude", "all weights")
EARLY = 100  # updates in which learning counts as early

study = Study(
    "ntt", smoke=dict(transfer_steps=12, steps=60, seeds=2), gpu=dict(transfer_steps=2000, seeds=20, steps=5000)
)


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=bench.digits,
    density: float = 0.05,
    transfer_steps: int = 400,
    lam_kernel: float = 1e-3,
    held_out: int = 100,
    steps: int = 600,
    seeds: int = 4,
) -> xr.Dataset:
    """Makes sparse networks by transfer from dense ones, then trains them beside other masks of the same density.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        density: the share of every layer's weights to keep.
        transfer_steps: updates of the transfer, of 32 examples without labels.
        lam_kernel: weight of the kernel's distance in the transfer.
        held_out: test inputs on which the two distances are measured before and after.
        steps: updates of each training, of 64 examples.
        seeds: repetitions, each with a split, a network and orders of its own.
    """
    common = dict(
        model=model, dataset=dataset, density=density, transfer_steps=transfer_steps, lam_kernel=lam_kernel,
        held_out=held_out, steps=steps,
    )  # fmt: skip
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, density, transfer_steps, lam_kernel, held_out, steps, seed) -> xr.Dataset:
    """The transfer, then all arms from one initialization as one fleet."""
    split, network = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    unseen = split.test[0][:held_out]
    largest = prune.one_shot(network, density=density, scope="layer")  # what the transfer begins with
    state = {name: value.clone() for name, value in network.state_dict().items()}
    start = prune.Ticket(largest, state, largest.density)
    ticket = prune.ntt(
        network, split.train[0], density=density, steps=transfer_steps, batch_size=32, lam_kernel=lam_kernel,
        generator=lab.seed("transfer", seed),
    )  # fmt: skip
    assert ticket.history is not None
    at_random = prune.random_mask_control(start, generator=lab.seed("mask", seed))
    sparse = [ticket, at_random, start]
    looks = sorted({*range(1, min(EARLY, steps) + 1), *range(0, steps + 1, 20), steps})

    def tested(trained) -> float:
        return (trained(split.test[0]).argmax(1) == split.test[1]).double().mean()

    trained = train.fleet(
        [*(each.network(network) for each in sparse), network], split.train, steps=steps, optimizer=bench.SGD,
        batch_size=bench.BATCH, masks=[*(each.masks for each in sparse), None],
        generator=[lab.seed("order", seed)] * len(ARMS), watch=train.Watch({"accuracy": tested}, at=looks),
    )  # fmt: skip
    apart = [distances(network, each.network(network), each.masks, unseen) for each in (start, ticket)]
    kept = [[float(each.masks[layer].double().mean()) for layer in largest] for each in sparse]
    moved = [float((ticket.masks[layer] & largest[layer]).sum() / largest[layer].sum()) for layer in largest]
    return xr.Dataset(
        {
            "accuracy": (("arm", "step"), trained.watched.accuracy.transpose("member", "step").values),
            "distance": (("time", "what"), np.array(apart)),
            "transfer_kernel": ("transfer_step", ticket.history.kernel_distance.values),
            "transfer_output": ("transfer_step", ticket.history.output_distance.values),
            "layer_density": (("sparse_arm", "layer"), kept),
            "kept_from_start": ("layer", moved),
        },
        {
            "arm": list(ARMS), "step": looks, "time": ["before", "after"], "what": ["kernel", "output"],
            "sparse_arm": list(ARMS[:3]), "layer": list(largest), "transfer_step": range(1, transfer_steps + 1),
        },
    )  # fmt: skip


@study.claim("kernel-brought-closer-kernel")
def kernel_closer(result: xr.Dataset) -> xr.DataArray:
    return closer(result, "kernel")


@study.claim("kernel-brought-closer-output")
def output_closer(result: xr.Dataset) -> xr.DataArray:
    return closer(result, "output")


@study.claim("beats-random-layerwise")
def final_above_random(result: xr.Dataset) -> xr.DataArray:
    if (lacking := at_five_percent(result)) is not None:
        return lacking
    last = result.accuracy.isel(step=-1, drop=True)
    return last.sel(arm="transfer", drop=True) - last.sel(arm="random mask", drop=True)


@study.claim("faster-early")
def early_above_magnitude(result: xr.Dataset) -> xr.DataArray:
    if (lacking := at_five_percent(result)) is not None:
        return lacking
    if int(result.step[-1]) < EARLY:
        return not_applicable(f"trainings of fewer than {EARLY} updates")
    early = result.accuracy.sel(step=range(1, EARLY + 1)).mean("step")
    return early.sel(arm="transfer", drop=True) - early.sel(arm="magnitude", drop=True)


def closer(result: xr.Dataset, what: str) -> xr.DataArray:
    """log10 of a distance on unseen inputs after the transfer over that before, averaged over seeds."""
    at = result.distance.sel(what=what, drop=True)
    return np.log10(at.sel(time="after", drop=True) / at.sel(time="before", drop=True)).mean("seed")


def at_five_percent(result: xr.Dataset) -> xr.DataArray | None:
    """Why a claim does not apply at another density."""
    density = float(result.layer_density.sel(sparse_arm="magnitude").mean())
    return None if abs(density - 0.05) < 0.005 else not_applicable(f"the density is {density:.3g}, not 0.05")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test accuracy while the arms are trained, and both distances on the batches of the transfer; means over seeds."""
    from plotly.subplots import make_subplots

    titles = ("test accuracy in training", "distance to the dense network in transfer")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles)
    colors = ("rgb(46, 124, 196)", "rgb(120, 120, 120)", "rgb(214, 104, 44)", "rgb(122, 92, 170)")
    mean = result.mean("seed")
    for arm, color in zip(result.arm.values, colors, strict=True):
        values = mean.accuracy.sel(arm=arm)
        drawing.add_scatter(x=result.step, y=values, name=str(arm), mode="lines", line={"color": color}, row=1, col=1)
    for name, color, dash in (("kernel", "rgb(46, 150, 88)", "solid"), ("output", "rgb(46, 150, 88)", "dot")):
        values = mean[f"transfer_{name}"]
        drawing.add_scatter(
            x=result.transfer_step, y=values / values[0], name=f"{name} distance",
            mode="lines", line={"color": color, "dash": dash}, row=1, col=2,
        )  # fmt: skip
    drawing.update_xaxes(title_text="updates", row=1, col=1)
    drawing.update_xaxes(title_text="updates", row=1, col=2)
    drawing.update_yaxes(title_text="squared distance, first batch = 1", type="log", row=1, col=2)
    return drawing
