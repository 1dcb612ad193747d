"""Gradient descent provably optimizes over-parameterized networks (Du, Zhai, Poczos and Singh, ICLR 2019)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, kernels, measure, stats, train
from ...lab import Study, not_applicable
from ..benches import wide_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

LOW, HIGH = 128, 8192  # the widths that the claims are about; narrower ones are a negative control
FITTED = 1e-6  # squared residual until which the rate is held against the theorem's
REACHED = 1e-2  # relative squared residual at which a network counts as trained

study = Study(
    "gd-two-layer-relu",
    smoke=dict(widths=(128, 512), n=20, steps=100, seeds=1, pair_width=128, pair_steps=200),
    gpu=dict(n=1000, d=1000, every=50, pair_steps=5000),
)


@study.experiment
def experiment(
    lab,
    *,
    widths: tuple[int, ...] = (16, 128, 256, 512, 1024, 2048, 4096, 8192),
    n: int = 60,
    d: int = 20,
    steps: int = 500,
    every: int = 10,
    pair_width: int = 2048,
    pair_angle: float = 1e-3,
    pair_steps: int = 1000,
    seeds: int = 5,
) -> xr.Dataset:
    """Trains the first layer of two-layer ReLU networks on random labels, and follows units and Gram matrix.

    Args:
        widths: hidden units; below 128 a control, for which the theory does not speak.
        n: inputs, drawn from the unit sphere.
        d: their dimensions.
        steps: updates, full-batch, at half of the inverse of the largest eigenvalue.
        every: updates between two looks at units and Gram matrix.
        pair_width: hidden units of the networks that are given a nearly parallel pair with opposite labels.
        pair_angle: the angle of the pair, in radians.
        pair_steps: updates that these have at most.
        seeds: repetitions, each with inputs, labels and networks of its own.
    """
    common = dict(n=n, d=d)
    wide = [dict(width=width, steps=steps, every=every) for width in sorted(widths, reverse=True)]
    paired = lab.map(
        with_pair,
        [dict(width=pair_width, angle=pair_angle, steps=pair_steps, seed=s, **common) for s in range(seeds)],
    )
    found = lab.map(one_network, [dict(seed=s, **cell, **common) for cell in wide for s in range(seeds)])
    rows = [xr.concat(found[start : start + seeds], "seed") for start in range(0, len(found), seeds)]
    result = xr.concat(rows, "width").assign_coords(width=[cell["width"] for cell in wide], seed=range(seeds))
    result = result.sortby("width").merge(xr.concat(paired, "seed").assign_coords(seed=range(seeds)))
    return result.assign_attrs(pair_width=pair_width)


def one_network(lab, *, width, n, d, steps, every, seed) -> xr.Dataset:
    """One width and seed: the residual, the Gram matrix's smallest eigenvalue, flips and displacements by step."""
    x, y = examples(lab, n=n, d=d, seed=seed)
    network = bench.two_layer_relu(d, width=width, generator=lab.seed("network", width, seed)).to(x.device)
    with torch.no_grad():
        promised = kernels.convergence_certificate(x, y, width=width, outputs=network(x))
    fitted = descend(network, x, y, lr=promised.lr, steps=steps, states=train.States(at=every))
    units = measure.lazy_neurons(network, fitted.states, x)
    gram = measure.gram_stability(network, fitted.states, x, y, lr=promised.lr, layer="hidden").sel(gram="layer")
    return xr.Dataset(
        {
            "squares": ("update", 2 * fitted.history.loss.values),
            "residual": gram.residual,
            "gram_smallest": gram.smallest.drop_vars("gram"),
            "flips": units.flips.isel(rectifier=0, drop=True),
            "displacement": units.largest.sel(weight="hidden.weight", drop=True),
            "typical_displacement": units["median"].sel(weight="hidden.weight", drop=True),
            "limit_smallest": promised.smallest,
            "factor": promised.factor,
            "radius": promised.radius,
            "theorem_width": promised.theorem_width,
        }
    ).drop_vars("gram", errors="ignore")


def with_pair(lab, *, width, n, d, angle, steps, seed) -> xr.Dataset:
    """Steps to fit one more input, next to the first and with the opposite label."""
    x, y = examples(lab, n=n, d=d, seed=seed)
    other = data.sphere(1, d, dtype=x.dtype, generator=lab.seed("pair", seed)).to(x.device)[0]
    aside = other - (other @ x[0]) * x[0]
    near = math.cos(angle) * x[0] + math.sin(angle) * aside / aside.norm()
    x, y = torch.cat([x, near[None]]), torch.cat([y, -y[:1]])
    network = bench.two_layer_relu(d, width=width, generator=lab.seed("network", width, seed)).to(x.device)
    promised = kernels.convergence_certificate(x, y, width=width)
    with torch.no_grad():
        start = float(bench.half_squares(network(x), y))
    fitted = descend(network, x, y, lr=promised.lr, steps=steps, stop_at=REACHED * start)
    return xr.Dataset(
        {"pair_steps": steps_to(2 * fitted.history.loss.values), "pair_limit_smallest": promised.smallest}
    )


def examples(lab, *, n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of norm 1 and random labels, -1 or 1."""
    x = data.sphere(n, d, dtype=torch.float64, generator=lab.seed("inputs", seed))
    coins = torch.randint(2, (n, 1), generator=torch.Generator().manual_seed(lab.seed("labels", seed)))
    return x.to(lab.device), (2.0 * coins.double() - 1).to(lab.device)


def descend(network, x, y, *, lr: float, **settings) -> train.Fit:
    """Full-batch descent on sum (f - y)^2 / 2."""
    optimizer = functools.partial(torch.optim.SGD, lr=lr)
    return train.fit(network, (x, y), optimizer=optimizer, loss_fn=bench.half_squares, batch_size=None, **settings)


def steps_to(squares: np.ndarray) -> float:
    """Updates until the squared residual is a hundredth of that of the start; infinite if it never is."""
    reached = np.flatnonzero(squares <= REACHED * squares[0])
    return float(reached[0]) if reached.size else math.inf


@study.claim("linear-rate")
def share_within_the_rate(result: xr.Dataset) -> xr.DataArray:
    wide = result.sel(width=result.width[(result.width >= 1024)])
    if not wide.width.size:
        return not_applicable("no width from 1024 on was run")
    bound = wide.factor**wide.step * wide.residual.isel(step=0)
    within = (wide.residual <= bound).where((wide.step > 0) & ~(wide.residual <= FITTED))
    return within.mean()


@study.claim("weights-stay-slope")
def displacement_slope(result: xr.Dataset) -> xr.DataArray:
    return slope(result, result.displacement.max("step"))


@study.claim("weights-stay-bound")
def displacement_by_bound(result: xr.Dataset) -> xr.DataArray:
    wide = claimed(result)
    if not wide.width.size:
        return not_applicable("no width from 128 to 8192 was run")
    return (wide.displacement.max("step") / wide.radius).max()


@study.claim("patterns-stay")
def flips_slope(result: xr.Dataset) -> xr.DataArray:
    return slope(result, result.flips.isel(step=-1, drop=True))


@study.claim("parallel-pair-breaks-eigenvalue")
def eigenvalue_ratio(result: xr.Dataset) -> xr.DataArray:
    return (result.limit_smallest.isel(width=0, drop=True) / result.pair_limit_smallest).min()


@study.claim("parallel-pair-breaks-speed")
def slowdown(result: xr.Dataset) -> xr.DataArray:
    width = result.attrs["pair_width"]
    if width != 2048 or width not in result.width:
        return not_applicable("width 2048 was not run both with and without the pair")
    without = xr.apply_ufunc(
        steps_to, result.squares.sel(width=width, drop=True), input_core_dims=[["update"]], vectorize=True
    )
    if bool(np.isinf(without).any()):
        return not_applicable("some network was not trained even without the pair: more steps are needed")
    return (result.pair_steps / without).median()


def claimed(result: xr.Dataset) -> xr.Dataset:
    return result.sel(width=result.width[(result.width >= LOW) & (result.width <= HIGH)])


def slope(result: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """The exponent of a power law in the width of the mean over seeds."""
    widths = claimed(result).width.values
    if len(widths) < 3:
        return not_applicable("a slope needs three widths from 128 to 8192")
    means = values.sel(width=widths).mean("seed")
    if not bool((means > 0).all()):
        return not_applicable("a mean is zero and has no logarithm")
    return xr.DataArray(stats.loglog_slope(widths, means.values).estimate)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """What moves less the wider the network is; and its Gram matrix, whose smallest eigenvalue must stay."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(1, 2, subplot_titles=("by width, at the end", "smallest eigenvalue of the Gram matrix"))
    shown = {
        "largest displacement": (result.displacement.max("step"), "46, 124, 196"),
        "median displacement": (result.typical_displacement.isel(step=-1), "122, 92, 170"),
        "share of activations flipped": (result.flips.isel(step=-1), "214, 104, 44"),
    }
    for name, (values, color) in shown.items():
        drawing.add_scatter(
            x=result.width, y=values.mean("seed"), mode="lines+markers", name=name, line={"color": f"rgb({color})"},
            error_y={"type": "data", "array": values.std("seed").values, "thickness": 1}, row=1, col=1,
        )  # fmt: skip
    for number, width in enumerate(result.width.values):
        shade = 215 - int(175 * number / max(1, result.width.size - 1))
        drawing.add_scatter(
            x=result.step, y=result.gram_smallest.sel(width=width).mean("seed"), name=f"width {width}",
            line={"color": f"rgb({shade}, {shade}, {shade})"}, row=1, col=2,
        )  # fmt: skip
    drawing.add_hline(
        y=float(result.limit_smallest.mean()), line={"dash": "dot"}, annotation_text="infinitely wide", row=1, col=2
    )
    drawing.update_xaxes(type="log", title_text="width", tickvals=result.width.values, row=1, col=1)
    drawing.update_yaxes(type="log", row=1, col=1)
    drawing.update_xaxes(title_text="step", row=1, col=2)
    return drawing
