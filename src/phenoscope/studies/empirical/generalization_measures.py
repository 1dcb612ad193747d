"""Fantastic generalization measures and where to find them (Jiang, Neyshabur, Mobahi et al., ICLR 2020)."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch.nn import functional

from ... import data, measure
from ...lab import Study, not_applicable
from ..benches import fitted_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

AXES = ("width", "depth", "rate", "batch", "decay")

study = Study(
    "generalization-measures",
    smoke=dict(
        dataset=functools.partial(data.digits, train=300), widths=(16, 32), depths=(1,), rates=(0.05, 0.1),
        batches=(32,), decays=(0.0, 5e-4), seeds=1, steps=600, points=200,
        measures=("params", "log-prod-spec", "path-norm", "pacbayes-mag-flat"),
    ),
    gpu=dict(steps=60_000, stop=0.01, seeds=10, points=1000, ascent=20, search=12),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.mnist1d,
    widths: tuple[int, ...] = (64, 128, 256),
    depths: tuple[int, ...] = (1, 2, 3),
    rates: tuple[float, ...] = (0.02, 0.1),
    batches: tuple[int, ...] = (32, 128),
    decays: tuple[float, ...] = (0.0, 5e-4),
    seeds: int = 3,
    noise: float = 0.1,
    steps: int = 5000,
    stop: float = 0.05,
    points: int = 300,
    ascent: int = 10,
    search: int = 10,
    measures: str | tuple[str, ...] = "all",
) -> xr.Dataset:
    """Trains networks over a grid of hyperparameters to one loss, measures each and ranks them by every measure.

    Args:
        model: the network's factory; it takes `width`, a tuple with one number a hidden layer.
        dataset: factory of the data.
        widths: of all hidden layers.
        depths: numbers of hidden layers.
        rates: learning rates at the start, which fall on a line to zero; momentum is 0.9.
        batches: examples in a batch.
        decays: of the weights.
        seeds: networks of each setting, each with data, an initialization and an order of its own.
        noise: share of the training labels that are drawn anew.
        steps: updates after which a network that has not reached the loss is dropped.
        stop: mean training loss at which a network is done.
        points: training examples that measures are taken on.
        ascent: steps of the search for the worst perturbation of the weights.
        search: bisections of the scale of a perturbation.
        measures: names of measures or of families, or all.
    """
    common = dict(
        model=model, dataset=dataset, rates=rates, decays=decays, seeds=seeds, noise=noise, steps=steps, stop=stop,
        points=points, ascent=ascent, search=search, measures=measures,
    )  # fmt: skip
    grid = list(itertools.product(sorted(widths, reverse=True), sorted(depths, reverse=True), batches))
    cells = [dict(width=width, depth=depth, batch=batch, **common) for width, depth, batch in grid]
    found = xr.combine_by_coords(
        [one.expand_dims(["width", "depth", "batch"]) for one in lab.map(one_shape, cells)], combine_attrs="drop"
    )
    assert isinstance(found, xr.Dataset)
    return found.merge(ranked(found))


def one_shape(
    lab, *, model, dataset, width, depth, batch, rates, decays, seeds, noise, steps, stop, points, ascent,
    search, measures,
) -> xr.Dataset:  # fmt: skip
    """Networks of one shape and batch size: every rate, decay and seed in one fleet; then all measures of each."""
    drawn = [bench.setting(lab, dataset=dataset, noise=noise, seed=seed) for seed in range(seeds)]
    members = list(itertools.product(rates, decays, range(seeds)))
    trained = bench.fitted(
        functools.partial(model, width=(width,) * depth),
        [drawn[seed][0] for _, _, seed in members],
        classes=drawn[0][2],
        seeds=[lab.seed("network", seed) for _, _, seed in members],
        steps=steps,
        batch=batch,
        stop_loss=stop,
        lr=[rate for rate, _, _ in members],
        weight_decay=[decay for _, decay, _ in members],
        device=lab.device,
    )
    fit, test = (
        trained.networks.accuracy(parts).cpu()
        for parts in ([drawn[seed][0] for _, _, seed in members], [drawn[seed][1] for _, _, seed in members])
    )
    rows = []
    for member, (_, _, seed) in enumerate(members):
        x, y = drawn[seed][0]
        rows.append(
            measure.complexity(
                trained.networks[member],
                trained.start[member].state_dict(),
                functional.cross_entropy,
                (x[:points], y[:points]),
                which=measures,
                history=trained.loss.isel(member=member, drop=True),
                levels=(2 * stop, stop),
                ascent=ascent,
                search=search,
                generator=lab.seed("noise", seed),
            )
        )
    shape = (len(rates), len(decays), seeds)
    dims = ("rate", "decay", "seed")
    table = xr.concat(rows, "member").value.transpose("member", "measure")
    return xr.Dataset(
        {
            "value": ((*dims, "measure"), table.values.reshape(*shape, -1)),
            "train_accuracy": (dims, fit.reshape(shape).numpy()),
            "test_accuracy": (dims, test.reshape(shape).numpy()),
            "steps": (dims, trained.steps.reshape(shape).numpy()),
            "fitted": (dims, trained.fitted.reshape(shape).numpy()),
        },
        {
            "rate": list(rates), "decay": list(decays), "seed": range(seeds), "width": width, "depth": depth,
            "batch": batch, "measure": table.measure.values, "family": ("measure", rows[0].family.values),
        },
    )  # fmt: skip


def ranked(found: xr.Dataset) -> xr.Dataset:
    """How every measure ranks the networks that fit, changing one hyperparameter at a time."""
    flat = found.stack(network=(*AXES, "seed"))
    flat = flat.isel(network=flat.fitted.values.astype(bool))
    gaps = flat.train_accuracy - flat.test_accuracy
    columns = {name: flat[name].values.tolist() for name in (*AXES, "seed")}
    return measure.rank_complexity(flat.value, gaps.values, columns, unscored=("seed",))


@study.claim("flatness-ranks")
def flatness(result: xr.Dataset) -> xr.DataArray:
    return by_group(result, "pacbayes-mag-flat")


@study.claim("flatness-above-spectral-norms")
def flatness_above_spectral_norms(result: xr.Dataset) -> xr.DataArray:
    return by_group(result, "pacbayes-mag-flat", "log-prod-spec")


@study.claim("parameter-count-fails")
def parameter_count(result: xr.Dataset) -> xr.DataArray:
    if "params" not in result.measure:
        return not_applicable("the parameters were not counted")
    psi = result.psi.sel(measure="params", drop=True)
    scores = [float(psi.sel(axis=axis)) for axis in ("width", "depth") if axis in psi.axis]
    if len(scores) < 2 or np.isnan(scores).any():
        return not_applicable("no two networks that fit differ in width alone, or in depth alone")
    return xr.DataArray(np.mean(scores))


def by_group(result: xr.Dataset, name: str, minus: str | None = None) -> xr.DataArray:
    """A measure's tau of every group, weighted so that axes count equally and the mean is Psi; or a difference."""
    if not {name, minus or name} <= set(result.measure.values.tolist()):
        return not_applicable(f"{name} was not measured, or what it is compared with")
    tau = result.group_tau.sel(measure=name, drop=True)
    if minus is not None:
        tau = tau - result.group_tau.sel(measure=minus, drop=True)
    tau = tau[tau.notnull().values]
    if not tau.size:
        return not_applicable("no two networks that fit differ in one hyperparameter alone")
    axes, count = np.unique(tau.group_axis.values, return_counts=True)
    share = dict(zip(axes, tau.size / (len(axes) * count), strict=True))
    weight = [share[axis] for axis in tau.group_axis.values]
    return xr.DataArray(tau.values * weight, dims="group", coords={"group": range(tau.size)})


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The granulated score of every measure by axis, best on top; how many networks were ranked at all."""
    import plotly.graph_objects as go

    order = result.measure[np.argsort(result.Psi.fillna(-2).values, kind="stable")]
    shown = result.sel(measure=order)
    table = np.concatenate([shown.psi.values, shown.Psi.values[:, None]], 1)
    drawing = go.Figure(
        go.Heatmap(
            z=table,
            x=[*result.axis.values.tolist(), "mean"],
            y=order.values.tolist(),
            zmin=-1,
            zmax=1,
            colorscale="RdBu",
            text=np.where(np.isnan(table), "", np.char.mod("%.2f", table)),
            texttemplate="%{text}",
            colorbar={"title": "tau"},
        )
    )
    fitted, all_ = int(result.fitted.sum()), result.fitted.size
    drawing.update_layout(
        title=f"{fitted} of {all_} networks reached the loss and are ranked", height=200 + 22 * len(order)
    )
    drawing.update_xaxes(title_text="the one hyperparameter that changes")
    return drawing
