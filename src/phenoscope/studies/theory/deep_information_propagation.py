"""Deep information propagation (Schoenholz, Gilmer, Ganguli, Sohl-Dickstein, ICLR 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, measure, stats, theory
from ...lab import Study, not_applicable
from ..benches import random_nets
from ..benches import trainability as bench

if TYPE_CHECKING:
    import plotly.graph_objects

AWAY = 0.2  # how far from the fixed point correlations start
NOISE = 5  # standard errors that a distance must exceed to be fitted
CAP = 20  # depth scales beyond this count as equally long: the border itself has an infinite one
AT_BORDER = 0.01  # |chi1 - 1| of a setting that has no decay rate to fit

study = Study(
    "deep-information-propagation",
    smoke=dict(random_width=100, random_depth=20, random_count=4, depths=(8, 25), steps=60, sigma_w2=(1.0, 2.5),
        dropout_keep=(),
    ),
    gpu=dict(
        sigma_w2=(1.0, 1.15, 1.3, 1.45, 1.6, 1.76, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0), width=300,
        depths=(10, 20, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300),
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    sigma_w2: tuple[float, ...] = (1.0, 1.3, 1.76, 2.5, 4.0),
    sigma_b2: float = 0.05,
    depths: tuple[int, ...] = (8, 15, 25, 40, 60),
    width: int = 64,
    dropout_keep: tuple[float, ...] = (0.9, 0.95),
    steps: int = 300,
    random_width: int = 500,
    random_depth: int = 60,
    random_count: int = 20,
) -> xr.Dataset:
    """Follows correlations and gradients through random tanh networks; trains networks of many depths beside it.

    Args:
        model: factory of the networks that are trained; it takes `width` and `depth`. Its layers are linear, with one
            activation.
        dataset: factory of the data.
        sigma_w2: variances of weights times fan-in; trained networks also start at the critical one.
        sigma_b2: variance of biases.
        depths: hidden layers of trained networks.
        width: units of their layers.
        dropout_keep: shares of units kept, in the arms with dropout, which start at the critical variance.
        steps: updates of each training, of 128 examples.
        random_width: units of random networks.
        random_depth: layers of random networks.
        random_count: how many of them there are at each variance.
    """
    shared = dict(model=model, dataset=dataset, sigma_w2=sigma_w2, sigma_b2=sigma_b2, width=width, steps=steps)
    trained = [
        dict(depth=depth, keep=keep, **shared) for depth in sorted(depths)[::-1] for keep in (1.0, *dropout_keep)
    ]
    accuracies = dict(zip([(c["depth"], c["keep"]) for c in trained], lab.map(train_depth, trained), strict=True))
    random = dict(sigma_b2=sigma_b2, width=random_width, depth=random_depth, nets=random_count)
    passages = lab.map(follow, [dict(sigma_w2=value, **random) for value in sigma_w2])
    grown = sorted(depths)
    plain = xr.concat([accuracies[depth, 1.0] for depth in grown], "depth").assign_coords(depth=grown)
    result = xr.merge([xr.concat(passages, "sigma_w2").assign_coords(sigma_w2=list(sigma_w2)), plain])
    if dropout_keep:
        by_keep = [
            xr.concat([accuracies[depth, keep].accuracy.isel(start=0, drop=True) for depth in grown], "depth")
            for keep in dropout_keep
        ]
        result["dropout_accuracy"] = xr.concat(by_keep, "keep").assign_coords(keep=list(dropout_keep), depth=grown)
    return result


def follow(lab, *, sigma_w2, sigma_b2, width, depth, nets) -> xr.Dataset:
    """Random tanh networks at one variance: correlations from both sides of the fixed point, and gradients."""
    act = theory.activation("tanh")
    field = theory.mean_field(act, sigma_w2, sigma_b2)
    ordered = field.c_star == 1
    starts = [1 - AWAY] if ordered else [field.c_star - AWAY, min(field.c_star + AWAY, (1 + field.c_star) / 2)]
    passage = random_nets.pass_through(
        act, sigma_w2=sigma_w2, sigma_b2=sigma_b2, q=field.q_star, starts=starts, pairs=32, width=width, depth=depth,
        nets=nets, generator=torch.Generator(lab.device).manual_seed(lab.seed("random", sigma_w2)),
    )  # fmt: skip
    correlation = passage.correlation.double().unflatten(2, (len(starts), -1)).mean(3)
    # |c - c*|, mean over starts: what both sides share, above all a finite network's own fixed point, cancels
    distance = passage.difference.double().mean(2) if ordered else (correlation[..., 1] - correlation[..., 0]) / 2
    mean, error = distance.mean(0).cpu().numpy(), (distance.std(0) / math.sqrt(nets)).cpu().numpy()
    lost = np.flatnonzero(mean[1:] < NOISE * error[1:])
    fitted = 1 + int(lost[0]) if lost.size else len(mean)
    gradient = passage.gradient.double().mean(0).cpu().numpy()
    slope = -stats.decay_rate(gradient[::-1]).estimate
    return xr.Dataset(
        {
            "distance": ("layer", mean),
            "gradient": ("weights", gradient),
            "fitted_layers": fitted,
            "decay_rate": stats.decay_rate(mean[:fitted]).estimate if fitted > 2 else math.nan,
            "gradient_slope": slope,
            "xi_c": field.xi_c,
            "c_star": field.c_star,
            "chi1": field.chi1,
        }
    )


def train_depth(lab, *, model, dataset, sigma_w2, sigma_b2, width, steps, depth, keep) -> xr.Dataset:
    """One depth: every variance, trained as one fleet; with dropout the critical variance alone."""
    split = data.load(dataset, generator=lab.seed("split")).to(lab.device)
    probe = bench.network(lab, model, split, depth=depth, width=width, sigma_w2=1.0, sigma_b2=sigma_b2)
    act = measure.hidden_activation(probe)
    critical = math.nan if act is None else theory.critical_line(act, sigma_b2)
    starts = [critical] if keep < 1 else [*sigma_w2, critical]
    if act is None:
        accuracy, scales = [math.nan] * len(starts), [math.nan] * len(starts)
    else:
        knobs = {"width": width} | ({} if keep == 1 else {"dropout": 1 - keep})
        networks = [
            bench.network(lab, model, split, depth=depth, sigma_w2=value, sigma_b2=sigma_b2, **knobs)
            for value in starts
        ]
        accuracy = bench.accuracies(lab, networks, split, steps=steps, name=f"{depth} {keep}")
        scales = [theory.mean_field(act, value, sigma_b2, dropout_keep=keep).xi_c for value in starts]
    return xr.Dataset(
        {
            "accuracy": ("start", accuracy), "trained_sigma_w2": ("start", starts), "trained_xi_c": ("start", scales),
        }
    )  # fmt: skip


@study.claim("xi-c-law-lower")
def smallest_rate(result: xr.Dataset) -> xr.DataArray:
    return rates_times_scale(result, xr.DataArray.min)


@study.claim("xi-c-law-upper")
def largest_rate(result: xr.Dataset) -> xr.DataArray:
    return rates_times_scale(result, xr.DataArray.max)


@study.claim("gradient-law")
def gradient_slope(result: xr.Dataset) -> xr.DataArray:
    x, y = np.log(result.chi1.values), result.gradient_slope.values
    if len(x) < 3:
        return not_applicable("a regression over settings needs three of them")
    return xr.DataArray(np.polyfit(x, y, 1)[0])


@study.claim("trainable-depth-rank")
def rank_correlation(result: xr.Dataset) -> xr.DataArray:
    crossing = crossings(result)
    if bool(crossing.isnull().any()):
        return not_applicable("the network is not linear layers with one activation")
    scales = np.minimum(result.trained_xi_c.isel(depth=0).values, CAP)
    rank = stats.spearman(scales, crossing.values)
    return not_applicable("all settings are trainable to the same depth") if math.isnan(rank) else xr.DataArray(rank)


@study.claim("trainable-depth-ratio")
def critical_over_ordered(result: xr.Dataset) -> xr.DataArray:
    crossing, at = crossings(result), np.flatnonzero(result.sigma_w2.values == 1.0)
    if not at.size or bool(crossing.isnull().any()):
        return not_applicable("sigma_w2 = 1 was not run, or the network is not linear layers with one activation")
    return crossing.isel(start=-1) / crossing.isel(start=int(at[0]))


@study.claim("dropout-limits")
def dropout_over_none(result: xr.Dataset) -> xr.DataArray:
    if "dropout_accuracy" not in result or 0.9 not in result.keep:
        return not_applicable("keep rate 0.9 was not run")
    accuracy = result.dropout_accuracy.sel(keep=0.9, drop=True)
    if bool(accuracy.isnull().any()):
        return not_applicable("the network is not linear layers with one activation")
    with_dropout = measure.crossing_depth(result.depth, accuracy)
    return with_dropout / crossings(result).isel(start=-1)


def rates_times_scale(result: xr.Dataset, pick: Callable[..., xr.DataArray]) -> xr.DataArray:
    """The smallest or largest fitted decay rate times xi_c, of settings away from the border."""
    found = (result.decay_rate * result.xi_c)[abs(result.chi1 - 1) > AT_BORDER]
    if not found.size or bool(found.isnull().any()):
        return not_applicable("no setting away from the border, or one without layers above the noise to fit")
    return pick(found)


def crossings(result: xr.Dataset) -> xr.DataArray:
    """Where accuracy crosses 0.5, by start; censored at the smallest and the largest depth. The last is critical."""
    values = [
        math.nan if bool(of.isnull().any()) else measure.crossing_depth(result.depth, of)
        for of in result.accuracy.transpose("start", "depth")
    ]
    return xr.DataArray(values, dims="start")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Decay of correlations beside their predicted rate, and accuracy by depth and variance beside 6 xi_c."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(1, 2, subplot_titles=("distance from the fixed point", "training accuracy"))
    colors = ("46, 124, 196", "122, 92, 170", "120, 120, 120", "214, 104, 44", "186, 56, 72")
    for number, value in enumerate(result.sigma_w2.values):
        of, color = result.sel(sigma_w2=value), f"rgb({colors[number % len(colors)]})"
        name = f"sigma_w2 = {value:g}"
        distance = of.distance.where(of.distance > 0)
        drawing.add_scatter(
            x=of.layer, y=distance, mode="markers", marker={"color": color, "size": 4}, name=name, row=1, col=1,
        )  # fmt: skip
        if math.isfinite(float(of.xi_c)):
            drawing.add_scatter(
                x=of.layer, y=float(distance[0]) * np.exp(-of.layer.values / float(of.xi_c)), mode="lines",
                line={"color": color, "width": 1}, showlegend=False, row=1, col=1,
            )  # fmt: skip
    order = np.argsort(result.trained_sigma_w2.isel(depth=0).values)
    starts, scales = (result[name].isel(depth=0).values[order] for name in ("trained_sigma_w2", "trained_xi_c"))
    drawing.add_heatmap(
        x=[f"{value:.3g}" for value in starts], y=result.depth.values, z=result.accuracy.isel(start=order).values,
        zmin=0, zmax=1, colorscale="Blues", colorbar={"title": "accuracy"}, row=1, col=2,
    )  # fmt: skip
    drawing.add_scatter(
        x=[f"{value:.3g}" for value in starts], y=np.minimum(6 * scales, result.depth.max().item()), name="6 xi_c",
        mode="lines+markers", line={"color": "rgb(214, 104, 44)"}, row=1, col=2,
    )  # fmt: skip
    drawing.update_xaxes(title_text="layer", row=1, col=1)
    drawing.update_yaxes(type="log", row=1, col=1)
    drawing.update_xaxes(title_text="sigma_w2", type="category", row=1, col=2)
    drawing.update_yaxes(title_text="depth", row=1, col=2)
    return drawing
