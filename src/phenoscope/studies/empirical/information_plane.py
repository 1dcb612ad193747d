"""Two phases in the information plane: layers fit, then forget their input (Shwartz-Ziv and Tishby, 2017)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from ... import data, measure, train
from ...lab import Study, not_applicable
from ..benches import information as bench

if TYPE_CHECKING:
    import plotly.graph_objects

JUDGED, OTHER = "adam", "sgd"
OPTIMIZERS = {JUDGED: bench.ADAM, OTHER: functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)}
EARLY, LATE = 100, 0.1  # the steps from 1 on, and the last share of them, between which gradients are compared
VIOLATED = 0.1  # bits by which a layer may know more than the one before it: bins are no bottleneck
LABELS_KNOW = 0.99  # I(X;Y) in bits

bits = functools.partial(data.icosahedral_bits, information=LABELS_KNOW)

study = Study(
    "information-plane",
    smoke=dict(steps=300, recordings=5, seeds=2),
    gpu=dict(dataset=functools.partial(bits, train=3482), steps=140_000, seeds=50),
)


@study.experiment
def experiment(
    lab, *, model=bench.mlp, dataset=bits, steps: int = 5000, recordings: int = 25, seeds: int = 5
) -> xr.Dataset:
    """Trains networks of tanh units and follows what each layer knows, and whether gradients of batches agree.

    Args:
        model: the network's factory, with the knobs activation and init.
        dataset: factory of the data; all their inputs together are the X of I(X;T).
        steps: updates, of 256 examples.
        recordings: at how many steps, evenly on a log scale.
        seeds: networks, each with data, an initialization and an order of its own.
    """
    common = dict(model=model, dataset=dataset, steps=steps, recordings=recordings, seeds=seeds)
    found = lab.map(one_optimizer, [dict(optimizer=name, **common) for name in OPTIMIZERS])
    return xr.concat(found, "optimizer").assign_coords(optimizer=list(OPTIMIZERS))


def one_optimizer(lab, *, optimizer, model, dataset, steps, recordings, seeds) -> xr.Dataset:
    """All networks as one fleet; then their snapshots, one by one."""
    fleet, splits = bench.trained(
        lab, model=model, dataset=dataset, activation="tanh", steps=steps, recordings=recordings, seeds=seeds,
        optimizer=OPTIMIZERS[optimizer],
    )  # fmt: skip
    found = bench.plane(fleet, splits, units=bench.UNITS["tanh"])
    ratio = xr.concat([followed(fleet, split, seed) for seed, split in enumerate(splits)], "seed")
    later = found.input.isel(layer=slice(1, None)).values - found.input.isel(layer=slice(-1)).values
    tested = [train.accuracy(network, split.test) for network, split in zip(fleet, splits, strict=True)]
    x, y = bench.inputs(splits[0])
    whole = measure.mi_binned(torch.arange(len(x)), y, bins=len(x))  # every input a symbol of its own
    return found.assign(
        ratio=ratio, phase_change=phase_change(ratio.mean("weight")), violations=float((later > VIOLATED).mean()),
        labels_know=whole.label, accuracy=("seed", tested),
    ).assign_coords(layer=range(1, found.sizes["layer"] + 1))  # fmt: skip


def followed(fleet: train.Fleet, split: data.Split, seed: int) -> xr.DataArray:
    """The signal-to-noise ratio of one network's gradients at every snapshot, over step and weight, 1 the first."""
    network, states, rows = fleet[seed], fleet.states.member(seed), []
    for state in states.values():
        network.load_state_dict(state)
        rows.append(measure.gradient_snr(network, cross_entropy, split.train, batch_size=bench.BATCH).snr.values)
    numbers = range(1, len(rows[0]) + 1)
    return xr.DataArray(np.stack(rows), {"step": list(states), "weight": numbers}, ("step", "weight"))


def phase_change(ratio: xr.DataArray) -> xr.DataArray:
    """The first step from which on the ratio stays below half of its largest so far; NaN if there is none."""
    axis = ratio.get_axis_num("step")
    low = ratio < ratio.copy(data=np.maximum.accumulate(ratio.values, axis=axis)) / 2
    stays = low.isel(step=slice(None, None, -1)).cumprod("step").isel(step=slice(None, None, -1)).astype(bool)
    return ratio.step.where(stays).min("step")


@study.claim("fitting-phase")
def label_gained(result: xr.Dataset) -> xr.DataArray:
    known = judged(result).label.isel(layer=-2, drop=True)
    return known.max("step") - known.sel(step=0, drop=True)


NO_EARLY_DRIFT = (
    "The rule is even: no bit by itself tells anything about the label, and in the first 100 steps there is little to "
    "agree on. Then the ratio over 13 batches is 0.1 to 1 in four of five networks, where pure noise has 0.28; batches "
    "of most networks agree best between steps 100 and 850 (up to 2.6), while the label is learned, less at the end "
    "(0.7 to 1.3). So there are a drift and a diffusion, but the drift comes after a plateau that the claim's early "
    "steps are part of."
)


@study.claim("drift-to-diffusion-every-seed", note=NO_EARLY_DRIFT)
def smallest_fall(result: xr.Dataset) -> xr.DataArray:
    fall = fall_of_ratio(result)
    return fall if "not_applicable" in fall.attrs else fall.min("seed")


@study.claim("drift-to-diffusion-mean", note=NO_EARLY_DRIFT)
def fall_of_ratio(result: xr.Dataset) -> xr.DataArray:
    ratio = np.log10(judged(result).ratio.mean("weight"))
    last = float(ratio.step[-1])
    early = ratio.sel(step=slice(1, EARLY))
    if last <= EARLY or not early.sizes["step"]:
        return not_applicable(f"no recordings both from step 1 to {EARLY} and later")
    return early.mean("step") - ratio.sel(step=slice((1 - LATE) * last, None)).mean("step")


@study.claim("upper-layers-compress")
def compressed(result: xr.Dataset) -> xr.DataArray:
    return bench.compression(judged(result).input.isel(layer=slice(-4, -1))).mean("layer")


def judged(result: xr.Dataset) -> xr.Dataset:
    """The networks trained by Adam; their last layer is the softmax, before it come the hidden ones."""
    return result.sel(optimizer=JUDGED, drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The information plane by step; I(X;T) by layer; the gradients' signal-to-noise ratio."""
    from plotly.colors import sample_colorscale
    from plotly.subplots import make_subplots

    titles = ("information plane, from dark to light", "I(X;T) by layer", "signal to noise of the gradient, by layer")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.08)
    mean = judged(result).mean("seed")
    at = mean.step.values + 1
    for layer in mean.layer.values:
        one = mean.sel(layer=layer)
        name = "softmax" if layer == mean.layer.values[-1] else f"layer {layer}"
        drawing.add_scatter(
            x=one.input, y=one.label, mode="lines+markers", showlegend=False, text=[f"step {step - 1}" for step in at],
            line={"color": "rgba(150, 150, 150, 0.4)"}, name=name, row=1, col=1,
            marker={"color": np.log10(at), "colorscale": "Viridis", "size": 7},
        )  # fmt: skip
    colors = sample_colorscale("Plasma", np.linspace(0, 0.85, mean.sizes["layer"]))
    for layer, color in zip(mean.layer.values, colors, strict=True):
        look = {"mode": "lines+markers", "line": {"color": color}, "legendgroup": str(layer)}
        name = "softmax" if layer == mean.layer.values[-1] else f"layer {layer}"
        drawing.add_scatter(x=at, y=mean.input.sel(layer=layer), name=name, row=1, col=2, **look)
        if layer in mean.weight:
            drawing.add_scatter(x=at, y=mean.ratio.sel(weight=layer), showlegend=False, row=1, col=3, **look)
    other = result.sel(optimizer=OTHER).ratio.mean(["seed", "weight"])
    drawing.add_scatter(
        x=at, y=other, name="SGD, mean of layers", mode="lines", line={"color": "black", "dash": "dot"}, row=1, col=3
    )
    drawing.add_hline(y=float(result.ceiling.max()), line_dash="dash", annotation_text="log2 N", row=1, col=2)
    drawing.add_hline(y=float(result.labels_know.max()), line_dash="dash", annotation_text="I(X;Y)", row=1, col=1)
    drawing.update_xaxes(type="log", title_text="step, plus one", col=2)
    drawing.update_xaxes(type="log", title_text="step, plus one", col=3)
    drawing.update_xaxes(title_text="I(X;T), bits", col=1)
    drawing.update_yaxes(title_text="I(T;Y), bits", col=1)
    drawing.update_yaxes(title_text="bits", col=2)
    drawing.update_yaxes(type="log", col=3)
    return drawing
