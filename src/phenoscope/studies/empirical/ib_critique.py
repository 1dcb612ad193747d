"""The information plane depends on the units: saturating ones compress, ReLU does not (Saxe et al., ICLR 2018)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, measure, models, train
from ...lab import Study
from ..benches import information as bench

if TYPE_CHECKING:
    import plotly.graph_objects

TANH, RELU, FULL = "tanh", "relu", "tanh, full batch"
ARMS = {TANH: ("tanh", bench.BATCH), RELU: ("relu", bench.BATCH), FULL: ("tanh", None)}
KDE_EVERY = 4  # of the recordings: every pair of 4096 inputs is compared
LINEAR = 100  # inputs, hidden units and examples of the linear student
LINEAR_SGD = functools.partial(torch.optim.SGD, lr=0.2)
LINEAR_NOISE = 0.1  # variance on the hidden units, without which they know everything
FRESH, LINEAR_EVERY = 2000, 10  # inputs that the student is tested on, and steps between looks
COLORS = {TANH: "rgb(214, 104, 44)", RELU: "rgb(46, 124, 196)", FULL: "rgb(122, 92, 170)"}

study = Study(
    "ib-critique",
    smoke=dict(steps=300, linear_steps=100, recordings=5, seeds=2, bins=(10, 30), noises=(0.1,)),
    gpu=dict(steps=130_000, linear_steps=20_000, seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=data.icosahedral_bits,
    steps: int = 4000,
    recordings: int = 25,
    seeds: int = 5,
    bins: tuple[int, ...] = (5, 10, 30, 100, 300),
    noises: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0),
    linear_steps: int = 3000,
) -> xr.Dataset:
    """Follows what layers of tanh and of ReLU units know, by the same code; and a linear student, exactly.

    Args:
        model: the network's factory, with the knobs activation and init.
        dataset: factory of the data; all their inputs together are the X of I(X;T).
        steps: updates, of 256 examples or of all.
        recordings: at how many steps, evenly on a log scale.
        seeds: networks, each with data, an initialization and an order of its own.
        bins: numbers of bins a unit that are compared for the last hidden layer but one; claims use 30.
        noises: variances of the noise that are compared there, for the first network.
        linear_steps: updates of the linear student.
    """
    common = dict(model=model, dataset=dataset, steps=steps, recordings=recordings, seeds=seeds)
    cells = [dict(arm=arm, bins=bins, noises=noises, **common) for arm in ARMS]
    arms = xr.concat(lab.map(one_arm, cells), "arm").assign_coords(arm=list(ARMS))
    students = lab.map(one_student, [dict(seed=seed, steps=linear_steps) for seed in range(seeds)])
    linear = xr.concat(students, "seed").assign_coords(seed=range(seeds))
    return xr.merge([arms, linear])


def one_arm(lab, *, arm, model, dataset, steps, recordings, seeds, bins, noises) -> xr.Dataset:
    """The networks of one kind of units and batches, and every estimate of what they know."""
    activation, batch = ARMS[arm]
    units = bench.UNITS[activation]
    fleet, splits = bench.trained(
        lab, model=model, dataset=dataset, activation=activation, steps=steps, recordings=recordings, seeds=seeds,
        batch=batch,
    )  # fmt: skip
    found = bench.plane(fleet, splits, units=units)
    layer = [bench.last_but_one(fleet, units)]
    look = functools.partial(bench.plane, fleet, splits, units=units, layers=layer)
    found["binned"] = xr.concat([known(look(bins=count)) for count in bins], xr.Variable("bins", list(bins)))
    found["refitted"] = known(look(estimator=measure.mi_binned))  # the trap: bins laid anew at every step
    few = [*range(0, found.sizes["step"], KDE_EVERY)]
    steps_at = found.step.values[sorted({*few, found.sizes["step"] - 1})]
    if noises:
        kde = [
            known(
                bench.plane(
                    fleet, splits[:1], units=units, layers=layer, steps=steps_at,
                    estimator=functools.partial(measure.mi_kde, noise_var=noise),
                )
            )
            for noise in noises
        ]  # fmt: skip
        whole = xr.concat(kde, xr.Variable("noise", list(noises))).isel(seed=0, drop=True)
        found["kde"] = whole.rename(step="kde_step")
    tested = [train.accuracy(network, split.test) for network, split in zip(fleet, splits, strict=True)]
    return found.assign(accuracy=("seed", tested)).assign_coords(layer=range(1, found.sizes["layer"] + 1))


def known(plane: xr.Dataset) -> xr.DataArray:
    """I(X;T) of the only layer."""
    return plane.input.isel(layer=0, drop=True)


def one_student(lab, *, seed, steps) -> xr.Dataset:
    """A linear student of a noisy linear teacher, with as many examples as inputs; signal and noise are equally large.

    Inputs are N(0, I / d), so that an input has length 1, and what a layer knows has a closed form.
    """
    rule = data.teacher(LINEAR, noise=1.0, generator=lab.seed("teacher", seed))
    x, y = rule.sample(LINEAR, lab.seed("examples", seed))
    fresh, _ = rule.sample(FRESH, lab.seed("fresh", seed))
    x, y, fresh, wanted = (each.to(lab.device) for each in (x, y, fresh, rule(fresh)))
    student = train.build(
        models.deep_linear, shape=(LINEAR,), num_classes=1, width=(LINEAR,), generator=lab.seed("student", seed)
    ).to(lab.device)
    covariance = torch.eye(LINEAR) / LINEAR

    def told(network) -> float:
        return measure.mi_gaussian_linear(network[1].weight, covariance, noise_var=LINEAR_NOISE).input

    def error(network) -> torch.Tensor:
        return (network(fresh / math.sqrt(LINEAR))[:, 0] - wanted).square().mean()

    watch = train.Watch({"linear_input": told, "linear_error": error}, at=LINEAR_EVERY)
    fit = train.fit(
        student, (x / math.sqrt(LINEAR), y[:, None]), steps=steps, optimizer=LINEAR_SGD, batch_size=None,
        loss_fn=torch.nn.functional.mse_loss, watch=watch,
    )  # fmt: skip
    return fit.watched.rename(step="linear_step")


@study.claim("tanh-compresses-relu-does-not-gap")
def gap(result: xr.Dataset) -> xr.DataArray:
    lost = compressed(result)
    return lost.sel(arm=TANH, drop=True) - lost.sel(arm=RELU, drop=True)


@study.claim("tanh-compresses-relu-does-not-ratio")
def ratio(result: xr.Dataset) -> xr.DataArray:
    lost = compressed(result).mean("seed")
    return lost.sel(arm=RELU, drop=True) / lost.sel(arm=TANH, drop=True)


@study.claim("stochasticity-not-needed")
def full_batch_ratio(result: xr.Dataset) -> xr.DataArray:
    lost = compressed(result).mean("seed")
    return lost.sel(arm=FULL, drop=True) / lost.sel(arm=TANH, drop=True)


@study.claim("linear-generalises-uncompressed-information")
def kept_by_linear(result: xr.Dataset) -> xr.DataArray:
    told = result.linear_input
    return (told.isel(linear_step=-1, drop=True) / told.max("linear_step")).mean("seed")


@study.claim("linear-generalises-uncompressed-error")
def error_of_linear(result: xr.Dataset) -> xr.DataArray:
    error = result.linear_error
    return (error.min("linear_step") / error.sel(linear_step=0, drop=True)).mean("seed")


def compressed(result: xr.Dataset) -> xr.DataArray:
    """Compression of the last hidden layer but one, over arm and seed; the last layer of all is the softmax."""
    return bench.compression(result.input.isel(layer=-3, drop=True))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """I(X;T) while training, and how compression depends on the estimator; the linear student."""
    from plotly.subplots import make_subplots

    titles = (
        "last hidden layer but one, 30 bins", "information plane, all layers", "compression by number of bins",
        "compression by variance of the noise", "bins: fixed, and laid anew at every step", "linear student, exact",
    )  # fmt: skip
    drawing = make_subplots(
        rows=2, cols=3, subplot_titles=titles, specs=[[{}] * 3, [{}, {}, {"secondary_y": True}]],
        horizontal_spacing=0.08, vertical_spacing=0.16,
    )  # fmt: skip
    steps = result.step.values + 1
    for arm in result.arm.values:
        one, line = result.sel(arm=arm), {"color": COLORS[str(arm)]}
        look = {"mode": "lines+markers", "line": line, "legendgroup": str(arm), "name": str(arm)}
        hidden = one.input.isel(layer=-3)
        drawing.add_scatter(x=steps, y=hidden.mean("seed"), row=1, col=1, **look)
        for layer in one.layer.values:
            path = one.sel(layer=layer).mean("seed")
            drawing.add_scatter(x=path.input, y=path.label, showlegend=False, row=1, col=2, **look)
        swept = bench.compression(one.binned).mean("seed")
        drawing.add_scatter(x=swept.bins, y=swept, showlegend=False, row=1, col=3, **look)
        if "kde" in result:
            by_noise = bench.compression(one.kde.rename(kde_step="step"))
            drawing.add_scatter(x=by_noise.noise, y=by_noise, showlegend=False, row=2, col=1, **look)
        drawing.add_scatter(x=steps, y=hidden.mean("seed"), showlegend=False, row=2, col=2, **look)
        anew = look | {"line": line | {"dash": "dot"}, "name": f"{arm}, bins laid anew"}
        drawing.add_scatter(x=steps, y=one.refitted.mean("seed"), row=2, col=2, **anew)
    ceiling = float(np.max(result.ceiling))
    drawing.add_hline(y=ceiling, line_dash="dash", annotation_text="log2 N", row=1, col=1)
    linear = result[["linear_input", "linear_error"]].mean("seed")
    for name, title, color, second in (
        ("linear_input", "I(X;T), linear", "rgb(120, 120, 120)", False),
        ("linear_error", "test error, linear", "rgb(40, 40, 40)", True),
    ):
        drawing.add_scatter(
            x=linear.linear_step + 1, y=linear[name], name=title, mode="lines", line={"color": color}, row=2, col=3,
            secondary_y=second,
        )  # fmt: skip
    places = {(1, 1): "step, plus one", (1, 3): "bins a unit", (2, 1): "variance", (2, 2): "step, plus one"}
    for (row, column), title in {**places, (2, 3): "step, plus one"}.items():
        drawing.update_xaxes(type="log", title_text=title, row=row, col=column)
    drawing.update_xaxes(title_text="I(X;T), bits", row=1, col=2)
    drawing.update_yaxes(title_text="I(T;Y), bits", row=1, col=2)
    for row, column in ((1, 1), (1, 3), (2, 1), (2, 2)):
        drawing.update_yaxes(title_text="bits", row=row, col=column)
    drawing.update_yaxes(title_text="I(X;T), bits", row=2, col=3, secondary_y=False)
    drawing.update_yaxes(type="log", title_text="test error", row=2, col=3, secondary_y=True)
    return drawing
