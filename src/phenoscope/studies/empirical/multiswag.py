"""MultiSWAG: averaging over basins and within each (Wilson, Izmailov, NeurIPS 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, measure, models, train
from ...lab import Study, not_applicable
from ..benches import fitted_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

NOISE = 0.2
WIDTHS = (4, 8, 16, 32, 64, 128, 256)
WIDE, SHIFTED = (64, 128, 256), (0.0, 0.5, 1.0)  # of the claim about noisy inputs
RATE, SWAG_RATE, BATCH = 0.05, 0.025, 64
SGD = functools.partial(torch.optim.SGD, lr=RATE, momentum=0.9, weight_decay=1e-4)
SCORES = ("nll", "error", "ece")

mlp = functools.partial(models.mlp, depth=1, init="he")

study = Study(
    "multiswag",
    smoke=dict(
        dataset=functools.partial(data.digits, train=400), widths=(8, 64), steps=150, swag_steps=50, every=10,
        members=2, samples=3, repeats=1,
    ),
    gpu=dict(widths=(*WIDTHS, 512, 1024), steps=6000, swag_steps=2000, every=100, members=10, samples=20, repeats=10),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=bench.mnist1d,
    widths: tuple[int, ...] = WIDTHS,
    steps: int = 1500,
    swag_steps: int = 500,
    every: int = 25,
    members: int = 5,
    samples: int = 10,
    stds: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0),
    repeats: int = 3,
) -> xr.Dataset:
    """Trains networks of many widths on wrong labels and averages over them, within each, and both.

    Args:
        model: the network's factory; it takes `width`.
        dataset: factory of the data.
        widths: of the hidden layer.
        steps: updates of the ordinary training.
        swag_steps: updates at half the rate that follow, whose weights are collected.
        every: steps between two collections; the last 20 deviations are kept.
        members: networks of an ensemble.
        samples: drawn around each.
        stds: of Gaussian noise on the test inputs.
        repeats: repetitions, each with data, networks and orders of its own.
    """
    common = dict(
        model=model, dataset=dataset, steps=steps, swag_steps=swag_steps, every=every, members=members,
        samples=samples, stds=stds, repeats=repeats,
    )  # fmt: skip
    found = lab.map(one_width, [dict(width=width, **common) for width in sorted(widths, reverse=True)])
    return xr.concat(found, "width").sortby("width")


def one_width(lab, *, model, dataset, width, steps, swag_steps, every, members, samples, stds, repeats) -> xr.Dataset:
    """All networks of a width in one fleet, then one Gaussian around each."""
    drawn = [bench.setting(lab, dataset=dataset, noise=NOISE, seed=repeat) for repeat in range(repeats)]
    each = [(repeat, member) for repeat in range(repeats) for member in range(members)]
    parts = [drawn[repeat][0] for repeat, _ in each]
    trained = train.fleet(
        functools.partial(model, width=width), parts, steps=steps, optimizer=SGD, batch_size=BATCH,
        num_classes=drawn[0][2], generator=[lab.seed("network", *names) for names in each], device=lab.device,
    )  # fmt: skip
    around = train.swag(
        trained, parts, steps=swag_steps, every=every, optimizer=functools.partial(SGD, lr=SWAG_RATE),
        batch_size=BATCH, generator=[lab.seed("order", *names) for names in each],
    )  # fmt: skip
    sampled = around.sample(samples, generator=lab.seed("samples", width))
    found = []
    for repeat in range(repeats):
        own = torch.arange(repeat * members, (repeat + 1) * members)
        fleets = {
            "trained": bench.chosen(trained, own),
            "longer": bench.chosen(around.networks, own),
            "sampled": bench.chosen(sampled, torch.arange(own[0] * samples, (own[-1] + 1) * samples)),
        }
        x, y = drawn[repeat][1]
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(lab.seed("noise", repeat))).to(x)
        found.append(xr.concat([compared(fleets, x + std * noise, y, samples) for std in stds], "std"))
    together = xr.concat(found, "repeat").assign_coords(repeat=range(repeats), std=list(stds), width=width)
    return together.assign_coords(trainings=("arm", [1, members, members, 1, members, members]))


def compared(fleets, x, y, samples) -> xr.Dataset:
    """Scores of every arm on the same inputs; what takes one training is the mean over the members."""
    each = {name: train.Ensemble(networks).member_probabilities(x) for name, networks in fleets.items()}
    by_member = each["sampled"].unflatten(0, (-1, samples))
    arms = {  # name -> the predictions that it stands for, and how many networks each of them asks
        "SGD": (each["trained"], 1),
        "deep ensemble": (each["trained"].mean(0, keepdim=True), len(by_member)),
        "ensemble, trained on": (each["longer"].mean(0, keepdim=True), len(by_member)),
        "SWAG": (by_member.mean(1), samples),
        "MultiSWAG, one sample": (by_member[:, 0].mean(0, keepdim=True), len(by_member)),
        "MultiSWAG": (each["sampled"].mean(0, keepdim=True), len(each["sampled"])),
    }
    scored = [np.mean([scores(p, y) for p in predictions], axis=0) for predictions, _ in arms.values()]
    passes = "arm", [count for _, count in arms.values()]
    columns = zip(SCORES, np.transpose(scored), strict=True)
    return xr.Dataset({name: ("arm", values) for name, values in columns}, {"arm": list(arms), "passes": passes})


def scores(probabilities, y) -> tuple[float, float, float]:
    """As `SCORES` names them."""
    error = (probabilities.argmax(1) != y).double().mean()
    return measure.nll(probabilities, y), float(error), measure.calibration_error(probabilities, y)


@study.claim("ensemble-beats-single-nll")
def ensemble_under_single(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, (128,), (0.0,)):
        return not_applicable(missing)
    loss = result.nll.sel(width=128, std=0.0, drop=True)
    return (of(loss, "SGD") - of(loss, "deep ensemble")).min()


LONGER = (
    "The 500 steps that SWAG takes on top fit the wrong labels further, and that costs more than averaging inside the "
    "basins gains. Beside the same five networks after these steps, MultiSWAG's loss is lower in 9 of 9 cells, by 0.15 "
    "on average; beside them before, it is higher in all."
)
RISE = (
    "Loss rises from width 16 on to the widest network, without a second descent. The height over the inner widths is "
    "1.13 for single networks, 0.51 for MultiSWAG, 0.46 for the deep ensemble and 0.58 for the ensemble trained on as "
    "long: averaging over trainings removes most of it, averaging inside the basins little."
)


@study.claim("multiswag-beats-ensemble", note=LONGER)
def share_above_multiswag(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, WIDE, SHIFTED):
        return not_applicable(missing)
    loss = result.nll.sel(width=list(WIDE), std=list(SHIFTED)).mean("std")
    return (of(loss, "deep ensemble") > of(loss, "MultiSWAG")).mean().drop_vars("width", errors="ignore")


@study.claim("alleviates-double-descent-gain")
def bump_removed(result: xr.Dataset) -> xr.DataArray:
    return bump(result, "SGD", 1.0, "MultiSWAG")


@study.claim("alleviates-double-descent-own-bump", note=RISE)
def bump_left(result: xr.Dataset) -> xr.DataArray:
    return bump(result, "SGD", 0.25, "MultiSWAG")


def bump(result: xr.Dataset, arm: str, share: float, other: str) -> xr.DataArray:
    """A share of the bump of one arm minus that of another; both are means over repeats."""
    if result.sizes["width"] < 3 or 0.0 not in result["std"]:
        return not_applicable("a bump needs at least three widths and inputs without noise")
    loss = result.nll.sel(std=0.0, drop=True).transpose("width", "repeat", "arm")
    lowest = np.minimum.accumulate(loss.values)[:-2]
    heights = loss.isel(width=0, drop=True).copy(data=(loss.values[1:-1] - lowest).max(0)).mean("repeat")
    return share * of(heights, arm) - of(heights, other)


def of(values: xr.DataArray, arm: str) -> xr.DataArray:
    return values.sel(arm=arm, drop=True).reset_coords(drop=True)


def lacking(result: xr.Dataset, widths, stds) -> str:
    """What to say if a width or a noise was not run; nothing if all were."""
    for name, wanted in (("width", widths), ("std", stds)):
        if missing := sorted(set(wanted) - set(result[name].values.tolist())):
            return f"{name} {missing[0]} was not run"
    return ""


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test loss by width; loss and calibration error of a wide network by noise; each arm's trainings and passes."""
    from plotly.subplots import make_subplots

    widths = result.width.values
    wide = 128 if 128 in widths else widths[-1]
    clean, shifted = result.isel(std=0).mean("repeat"), result.sel(width=wide).mean("repeat")
    titles = ("test NLL by width", f"test NLL at width {wide}", f"calibration error at width {wide}")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    colors = (
        "rgb(120, 120, 120)", "rgb(46, 124, 196)", "rgb(140, 180, 220)", "rgb(122, 92, 170)", "rgb(240, 180, 140)",
        "rgb(214, 104, 44)",
    )  # fmt: skip
    costs = zip(result.trainings.values, result.passes.values, strict=True)
    for arm, (trainings, passes), color in zip(result.arm.values, costs, colors, strict=True):
        name = f"{arm}: trainings {trainings}, passes {passes}"
        curves = ((clean.width, clean.nll), (shifted["std"], shifted.nll), (shifted["std"], shifted.ece))
        for column, (x, values) in enumerate(curves, start=1):
            drawing.add_scatter(
                x=x, y=values.sel(arm=arm), mode="lines+markers", name=name, legendgroup=str(arm),
                line={"color": color}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width", tickvals=widths, row=1, col=1)
    for column in (2, 3):
        drawing.update_xaxes(title_text="standard deviation of the noise on inputs", row=1, col=column)
    drawing.update_yaxes(title_text="nats", row=1, col=1)
    return drawing
