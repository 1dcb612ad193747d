"""Gradients that agree across samples generalize: the one-step ratio predicted by GSNR (Liu, Jiang, Bai, ICLR 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from ... import data, measure, models, train
from ...core.errors import InputError
from ...core.taps import layers
from ...lab import Study, not_applicable
from ..benches import fitted_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

GD = functools.partial(torch.optim.SGD, lr=0.1)
LEARNED = 0.6  # of the whole decrease of the training loss: up to there the prediction is compared
EARLY = 0.25  # of the steps: over which ratios of true and random labels are averaged
COLORS = {0.0: "rgb(46, 124, 196)", 0.25: "rgb(74, 160, 110)", 0.5: "rgb(214, 164, 44)", 1.0: "rgb(196, 70, 60)"}

mnist1d = functools.partial(data.mnist1d, train=7200, test=2400)
mlp = functools.partial(models.mlp, width=(64, 64), init="he")

study = Study(
    "gsnr",
    smoke=dict(
        dataset=functools.partial(data.mnist1d, train=600, test=200), noises=(0.0, 1.0), networks=3, examples=200,
        steps=60, starts=1,
    ),
    gpu=dict(networks=10, examples=720, every=5, starts=10),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=mnist1d,
    noises: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0),
    networks: int = 8,
    examples: int = 600,
    steps: int = 400,
    every: int = 20,
    starts: int = 3,
) -> xr.Dataset:
    """Trains networks from one start on disjoint samples, and compares what steps bring on these and on other data.

    Args:
        model: the network's factory.
        dataset: factory of the data, with enough training examples for disjoint samples.
        noises: shares of the labels, of training and test data alike, that are drawn anew.
        networks: how many are trained, each on a sample of its own.
        examples: in each sample.
        steps: updates of gradient descent on the whole sample.
        every: steps between two looks at gradients and at what the next step brings.
        starts: initializations, each with data of its own.
    """
    common = dict(
        model=model, dataset=dataset, networks=networks, examples=examples, steps=steps, every=every, starts=starts
    )
    arms = [dict(noise=noise, frozen=False) for noise in noises] + [dict(noise=0.0, frozen=True)]
    found = lab.map(one_arm, [arm | dict(start=start) | common for arm in arms for start in range(starts)])
    found = [xr.concat(found[at : at + starts], "start") for at in range(0, len(found), starts)]
    whole = xr.concat(found[:-1], xr.Variable("noise", list(noises)))
    control = found[-1].rename({name: f"frozen_{name}" for name in found[-1].data_vars})
    return xr.merge([whole, control]).assign_coords(start=range(starts))


def one_arm(lab, *, noise, frozen, start, model, dataset, networks, examples, steps, every, starts) -> xr.Dataset:
    """Networks of one start on disjoint samples; gradients of the samples, and losses one step later."""
    (x, y), (fresh_x, fresh_y), classes = bench.setting(lab, dataset=dataset, noise=0.0, seed=start)
    if networks * examples > len(x):
        raise InputError(f"{networks} samples of {examples} need {networks * examples} examples; there are {len(x)}")
    y, fresh_y = (
        data.label_noise(each, noise, classes=classes, generator=lab.seed("labels", part, start))[0]
        for part, each in (("train", y), ("test", fresh_y))
    )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(lab.seed("samples", start))).to(x.device)
    samples = [(x[rows], y[rows]) for rows in order[: networks * examples].split(examples)]
    network = train.build(model, shape=tuple(x.shape[1:]), num_classes=classes, generator=lab.seed("network", start))
    network.to(lab.device)
    if frozen:
        network.requires_grad_(False)
        list(layers(network).values())[-1].requires_grad_(True)
    at = list(range(0, steps, every))
    fleet = train.fleet(
        [network] * networks, samples, steps=steps, optimizer=GD, batch_size=None, generator=0,
        states=train.States(at={step + later for step in at for later in (0, 1)}),
    )  # fmt: skip
    rows = [one_look(fleet.at(step), fleet.at(step + 1), samples, (fresh_x, fresh_y)) for step in at]
    loss = fleet.history.loss.values.mean(1)  # before every update
    last = [train.outputs(member, sample) for member, sample in zip(fleet, samples, strict=True)]
    ends = [float(cross_entropy(scores, sample[1])) for scores, sample in zip(last, samples, strict=True)]
    loss = np.append(loss, np.mean(ends))
    learned = (loss[0] - loss[at]) / (loss[0] - loss[-1])
    table = {name: ("step", [row[name] for row in rows]) for name in rows[0]}
    gain = ("step", loss[at] - loss[[step + 1 for step in at]])
    return xr.Dataset(table | {"train_gain": gain, "learned": ("step", learned)}, {"step": at})


def one_look(now: train.Fleet, later: train.Fleet, samples, fresh) -> dict[str, float]:
    """What the gradients on the training samples predict, and by how much the next step lowers the loss on new data."""
    moments = [measure.gsnr(member, cross_entropy, sample) for member, sample in zip(now, samples, strict=True)]
    return {
        "predicted": measure.osgr(moments),
        "predicted_plain": measure.osgr(moments, corrected=False),
        "gsnr": float(np.mean([each.average() for each in moments])),
        "test_gain": loss_on(now, fresh) - loss_on(later, fresh),
    }


def loss_on(fleet: train.Fleet, part) -> float:
    """The mean loss of all networks on the same data."""
    scores = fleet.outputs(part[0], batch_size=600).double()
    return float(cross_entropy(scores.flatten(0, 1), part[1].repeat(len(fleet))))


@study.claim("osgr-predicted")
def correlation(result: xr.Dataset) -> xr.DataArray:
    predicted, realized = compared(result)
    if len(predicted) < 3:
        return not_applicable(f"{len(predicted)} recorded steps lie in the first {LEARNED:.0%} of the learning")
    return xr.DataArray(np.corrcoef(predicted, realized)[0, 1])


OUTPUTS_SHRINK = (
    "He's initialization makes outputs so large that the first gradients of all examples agree on shrinking them, "
    "whatever the labels and whether or not lower layers learn: the ratio is highest at step 0 (0.009 to 0.018) and "
    "falls. With a last layer a hundredth as large (one start, 4 networks, a look every 4 steps) it doubles under true "
    "labels, from 0.005 to 0.010, stays at 0.002 under random ones, and falls from 0.007 on in the frozen control."
)


@study.claim("random-labels-lower-gsnr", note=OUTPUTS_SHRINK)
def true_above_random(result: xr.Dataset) -> xr.DataArray:
    if not {0.0, 1.0} <= set(result.noise.values.tolist()):
        return not_applicable("true and random labels were not both trained on")
    step = result.step.values
    early = result.gsnr.isel(step=np.flatnonzero(step <= EARLY * (step[-1] + step[1] - step[0])))
    ratio = np.log10(early.mean("step"))
    return (ratio.sel(noise=0.0, drop=True) - ratio.sel(noise=1.0, drop=True)).min("start")


@study.claim("feature-learning-raises-gsnr", note=OUTPUTS_SHRINK)
def rise_above_frozen(result: xr.Dataset) -> xr.DataArray:
    if 0.0 not in result.noise:
        return not_applicable("true labels were not trained on")
    whole, frozen = result.gsnr.sel(noise=0.0, drop=True), result.frozen_gsnr
    rise = [each.max("step") / each.isel(step=0, drop=True) for each in (whole, frozen)]
    return (rise[0] / rise[1]).min("start")


def compared(result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and realized one-step ratios of all noises, starts and steps that count."""
    counts = (result.learned <= LEARNED).values
    return result.predicted.values[counts], (result.test_gain / result.train_gain).values[counts]


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Predicted against realized one-step ratio; the mean gradient signal-to-noise ratio over the steps."""
    from plotly.subplots import make_subplots

    titles = ("one-step generalization ratio", "mean gradient signal-to-noise ratio", "the same, over that of step 0")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.08)
    for noise in result.noise.values:
        one, color = result.sel(noise=noise), COLORS.get(float(noise), "rgb(120, 120, 120)")
        look = {"name": f"{noise:.0%} random labels", "legendgroup": str(noise)}
        realized = one.test_gain / one.train_gain
        for part, opacity in ((one.learned <= LEARNED, 0.9), (one.learned > LEARNED, 0.2)):
            x, y = one.predicted.values[part.values], realized.values[part.values]
            drawing.add_scatter(
                x=x, y=y, mode="markers", marker={"color": color}, opacity=opacity, showlegend=False, row=1, col=1,
                **look,
            )  # fmt: skip
        drawing.add_scatter(
            x=one.step, y=one.gsnr.mean("start"), mode="lines+markers", line={"color": color}, row=1, col=2, **look
        )
    for values, name in ((result.gsnr.isel(noise=0), "whole network"), (result.frozen_gsnr, "last layer only")):
        drawing.add_scatter(
            x=result.step, y=(values / values.isel(step=0)).mean("start"), name=name, mode="lines+markers",
            line={"dash": "dot"}, row=1, col=3,
        )  # fmt: skip
    drawing.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "rgb(150, 150, 150)"}, showlegend=False, row=1, col=1
    )
    drawing.update_xaxes(title_text="predicted", col=1)
    drawing.update_yaxes(title_text="realized by networks on test data", col=1)
    drawing.update_xaxes(title_text="step", col=2)
    drawing.update_yaxes(type="log", col=2)
    drawing.update_xaxes(title_text="step", col=3)
    return drawing
