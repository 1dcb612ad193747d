"""Neural tangent kernel: convergence and generalization in neural networks (Jacot, Gabriel and Hongler, NeurIPS 2018).

The loss is sum (f - y)^2 / 2n over n examples, so that an eigenvalue v of Theta / n lets its component of the residual
shrink by 1 - lr v in a step.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, kernels, models, stats, train
from ...lab import Study, not_applicable
from ..benches import wide_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

DEPTH, SIGMA_W2, SIGMA_B2 = 2, 2.0, 0.01
FLOOR = 0.05  # of its start: below, a component is no longer looked at
SMALLEST = 0.02  # of the largest eigenvalue
LARGEST = 1024
mlp = functools.partial(
    models.mlp, depth=DEPTH, activation="relu", parametrization="ntk",
    init=functools.partial(models.init_gaussian, sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2),
)  # fmt: skip
limit = functools.partial(kernels.mlp_kernels, depth=DEPTH, act="relu", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)

study = Study(
    "ntk",
    smoke=dict(widths=(32, 128), trained_widths=(64, 128), seeds=5, steps=20, decay_width=512, decay_steps=20),
    gpu=dict(
        widths=(32, 64, 128, 256, 512, 1024, 4096, 10000), trained_widths=(64, 128, 256, 512, 1024, 4096, 10000),
        decay_width=10000, decay_steps=2000, n=512,
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=data.digits,
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024),
    trained_widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    decay_width: int = 2048,
    n: int = 20,
    seeds: int = 20,
    trained_seeds: int = 5,
    decay_seeds: int = 3,
    steps: int = 300,
    decay_steps: int = 500,
) -> xr.Dataset:
    """Compares tangent kernels of growing width with the limit's, at the start and after training on few images.

    Args:
        model: the network's factory; it takes `width`. Two hidden ReLU layers in the NTK parametrization unless given.
        dataset: factory of the data; labels are even or odd.
        widths: hidden units of a layer, at the start.
        trained_widths: hidden units of a layer, in training.
        decay_width: hidden units where the components of the residual are followed.
        n: images.
        seeds: initializations of each width.
        trained_seeds: networks of each width that are trained.
        decay_seeds: networks whose residual is followed.
        steps: updates at the largest rate at which no component overshoots, 1 / largest eigenvalue of Theta / n.
        decay_steps: updates at a tenth of this rate; after 500 a component of the smallest eigenvalue that counts is
            e-fold smaller.
    """
    common = dict(model=model, dataset=dataset, closed=limit if model is mlp else None, n=n)
    slow = [dict(width=decay_width, steps=decay_steps, seed=seed, **common) for seed in range(decay_seeds)]
    followed = lab.map(decay, slow)  # the longest first
    drifts = lab.map(drift, [dict(width=w, steps=steps, seeds=trained_seeds, **common) for w in trained_widths[::-1]])
    starts = lab.map(start, [dict(width=w, seeds=seeds, **common) for w in widths[::-1]])
    parts = [
        xr.concat(starts[::-1], "width"),
        xr.concat(drifts[::-1], "trained_width"),
        xr.concat(followed, "decay_seed"),
    ]
    return xr.merge(parts).assign_attrs(steps=steps, decay_width=decay_width, seeds=seeds)


def start(lab, *, model, dataset, closed, n, width, seeds) -> xr.Dataset:
    """The kernels of one width at the start: their mean's distance to the limit, and their spread."""
    pair = examples(lab, dataset, n)
    found = kernels.finite_width_gap(
        model, pair[0], limit=limit_of(lab, model, closed, pair), widths=[width], repeats=seeds, get=("ntk",),
        generator=lab.seed("start", width), device=lab.device,
    )  # fmt: skip
    return found.rename(repeat="seed").isel(width=0)


def drift(lab, *, model, dataset, closed, n, width, steps, seeds) -> xr.Dataset:
    """How far the kernels of one width move in training."""
    pair = examples(lab, dataset, n)
    networks = [bench.network(lab, model, pair, width=width, seed=seed) for seed in range(seeds)]
    rates = [n * bench.critical_rate(network, pair[0]) / 2 for network in networks]
    trained = train.fleet(
        networks, pair, steps=steps, optimizer=torch.optim.SGD, lr=rates, loss_fn=half_mean, batch_size=None,
        generator=lab.seed("order"),
    )  # fmt: skip
    moved = []
    for before, after in zip(networks, trained, strict=True):
        theta = [kernels.empirical_ntk(network, pair[0], outputs="trace").double() for network in (before, after)]
        moved.append(float((theta[1] - theta[0]).norm() / theta[0].norm()))
    left = trained.history.loss.values[-1] / trained.history.loss.values[0]
    return xr.Dataset(
        {"drift": ("trained_seed", moved), "loss_left": ("trained_seed", left)},
        {"trained_seed": range(seeds), "trained_width": width},
    )


def decay(lab, *, model, dataset, closed, n, width, steps, seed) -> xr.Dataset:
    """The residual of one network along the eigenvectors of the limit's kernel, step by step."""
    x, y = examples(lab, dataset, n)
    theta = limit_of(lab, model, closed, (x, y))(x).ntk.double().cpu() / n
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(theta))
    rate = 0.1 / float(values[0])
    network = bench.network(lab, model, (x, y), width=width, seed=seed)
    residuals = train.Watch({"f": lambda net: net(x)}, at=1)
    trained = train.fit(
        network, (x, y), steps=steps, optimizer=functools.partial(torch.optim.SGD, lr=rate), loss_fn=half_mean,
        batch_size=None, watch=residuals,
    )  # fmt: skip
    left = trained.watched["f"].values[..., 0] - y.double().cpu().numpy()[:, 0]
    components = np.abs(left @ vectors.numpy())
    return xr.Dataset(
        {
            "component": (("step", "eigenvector"), components),
            "measured_rate": ("eigenvector", [rate_of(each) for each in components.T]),
            "predicted_rate": ("eigenvector", -np.log1p(-rate * values.numpy())),
            "share": ("eigenvector", (values / values[0]).numpy()),
        },
        {"step": trained.watched.step.values, "eigenvector": range(n), "decay_seed": seed},
    )


def rate_of(component: np.ndarray) -> float:
    """The log-decay rate over the first steps, those above a share of the start."""
    return stats.decay_rate(np.maximum(component, 1e-300), above=FLOOR).estimate


def examples(lab, dataset, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` images, and 1 for even and -1 for odd labels, (n, 1)."""
    x, y = data.load(dataset, generator=lab.seed("split")).train
    return x[:n].to(lab.device), (1.0 - 2 * (y[:n, None] % 2)).to(lab.device, x.dtype)


def limit_of(lab, model, closed, pair):
    """From inputs to the kernels of the limit: a closed form, or what its layers say of a network of the user's."""
    return closed or kernels.infinite(bench.network(lab, model, pair, width=16, seed=0))


def half_mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """sum (f - y)^2 / 2n."""
    return (outputs - targets).square().sum() / (2 * len(targets))


@study.claim(
    "init-variance-rate",
    note="The exponent lies where it should, but twenty starts do not pin it down: at small widths a few of them, with "
    "kernels far from the mean, make most of the variance. Of 150 starts, widths 32 to 512, it is -1.06.",
)
def variance_slope(result: xr.Dataset) -> xr.DataArray:
    found = result.sel(width=(result.width >= 32) & (result.width <= LARGEST))
    if found.sizes["width"] < 3 or found.sizes["seed"] < 3:
        return not_applicable("a slope needs three widths between 32 and 1024 and three seeds")
    deviation, count = found.ntk_deviation, found.sizes["seed"]

    def slope(spread: xr.DataArray) -> float:
        return stats.loglog_slope(found.width, spread).estimate

    # what the sum of squares around the mean becomes when one start is left out
    without = deviation.sum("seed") - deviation * count / (count - 1)
    whole = slope(deviation.sum("seed"))
    left_out = np.array([slope(without.isel(seed=seed)) for seed in range(count)])
    return xr.DataArray(count * whole - (count - 1) * left_out, {"seed": range(count)}, "seed")


@study.claim("init-mean")
def mean_distance(result: xr.Dataset) -> xr.DataArray:
    if LARGEST not in result.width or result.attrs["seeds"] != 20:
        return not_applicable("20 seeds at width 1024 were not run")
    return result.ntk_gap.sel(width=LARGEST, drop=True)


@study.claim("frozen-in-training-slope")
def drift_slope(result: xr.Dataset) -> xr.DataArray:
    found = result.drift.sel(trained_width=(result.trained_width >= 64) & (result.trained_width <= LARGEST))
    if found.sizes["trained_width"] < 3 or result.attrs["steps"] != 300:
        return not_applicable("300 steps at three widths between 64 and 1024 were not run")
    by_seed = found.transpose("trained_seed", ...).values
    slopes = [stats.loglog_slope(found.trained_width, of_seed).estimate for of_seed in by_seed]
    return xr.DataArray(slopes, {"seed": found.trained_seed.values}, "seed")


@study.claim("frozen-in-training-size")
def drift_size(result: xr.Dataset) -> xr.DataArray:
    if LARGEST not in result.trained_width or result.attrs["steps"] != 300:
        return not_applicable("300 steps at width 1024 were not run")
    return result.drift.sel(trained_width=LARGEST, drop=True).mean("trained_seed")


@study.claim("eigen-decay-slope")
def decay_slope(result: xr.Dataset) -> xr.DataArray:
    return rates(result, lambda x, y: x @ y / (x @ x))


@study.claim(
    "eigen-decay-fit",
    note="Four of 57 components happen to start below a hundredth of the residual's norm: what a finite network's "
    "kernel mixes into them from others is larger than they are, and they cross zero early. Two of these rates are "
    "noise that, in R^2 around the mean, outweighs all others; without the four it is 0.98.",
)
def decay_fit(result: xr.Dataset) -> xr.DataArray:
    """The share of the variance of ln(measured rate) around its mean."""

    def r2(x: np.ndarray, y: np.ndarray) -> float:
        rest = y - x * (x @ y / (x @ x))
        return 1 - (rest @ rest) / ((y - y.mean()) @ (y - y.mean()))

    return rates(result, r2)


def rates(result: xr.Dataset, of) -> xr.DataArray:
    """A number of ln(predicted) and ln(measured rate), all seeds together, if measured as the claims say."""
    if result.attrs["decay_width"] < 2048:
        return not_applicable("width 2048 was not run")
    counted = (result.share > SMALLEST).values
    predicted, measured = result.predicted_rate.values[counted], result.measured_rate.values[counted]
    return xr.DataArray(of(np.log(predicted), np.log(measured)))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The spread of kernels and their change by width; measured against predicted rates of decay."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 2, subplot_titles=("tangent kernels by width", "decay of the error's components, a step")
    )
    blue, red, violet = "rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(122, 92, 170)"
    scale = result.ntk_variance.values[0]
    drawing.add_scatter(
        x=result.width, y=result.ntk_variance / scale, mode="lines+markers", line={"color": blue},
        name="variance over starts (first width: 1)", row=1, col=1,
    )  # fmt: skip
    drawing.add_scatter(
        x=result.width, y=result.ntk_gap, mode="lines+markers", line={"color": violet}, name="mean against the limit",
        row=1, col=1,
    )  # fmt: skip
    drawing.add_scatter(
        x=result.trained_width, y=result.drift.mean("trained_seed"), mode="lines+markers", line={"color": red},
        error_y={"type": "data", "array": result.drift.std("trained_seed").values, "thickness": 1},
        name="change in training", row=1, col=1,
    )  # fmt: skip
    counted = result.share > SMALLEST
    for name, which, symbol in (
        ("components that count", counted, "circle"),
        ("smaller ones", ~counted, "circle-open"),
    ):
        drawing.add_scatter(
            x=result.predicted_rate.values[which.values], y=result.measured_rate.values[which.values], mode="markers",
            name=name, marker={"color": blue, "symbol": symbol, "size": 7}, row=1, col=2,
        )  # fmt: skip
    ends = [float(result.predicted_rate.min()), float(result.predicted_rate.max())]
    drawing.add_scatter(
        x=ends, y=ends, mode="lines", name="as predicted", line={"dash": "dot", "color": "gray"}, row=1, col=2
    )
    drawing.update_xaxes(type="log", title_text="width", row=1, col=1)
    drawing.update_xaxes(type="log", title_text="from the eigenvalue", row=1, col=2)
    drawing.update_yaxes(type="log")
    return drawing
