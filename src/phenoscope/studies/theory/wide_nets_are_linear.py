"""Wide networks evolve as linear models under gradient descent (Lee, Xiao, Schoenholz et al., NeurIPS 2019)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import kernels, measure, stats
from ...lab import Study, not_applicable
from ..benches import wide_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

BELOW, ABOVE = 0.8, 1.3  # times the critical rate

study = Study(
    "wide-nets-are-linear",
    smoke=dict(
        widths=(32, 128), entropy_widths=(), standard_widths=(), exact_width=32, seeds=1, steps=60, threshold_steps=20
    ),
    gpu=dict(widths=(32, 64, 128, 256, 512, 1024, 2048, 4096), seeds=10),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024),
    threshold_width: int = 1024,
    threshold_steps: int = 100,
    entropy_widths: tuple[int, ...] = (64, 512),
    standard_widths: tuple[int, ...] = (64, 512),
    exact_width: int = 256,
    classes: int = 2,
    n: int = 64,
    steps: int = 300,
    seeds: int = 3,
) -> xr.Dataset:
    """Trains networks of growing width beside their linearizations and beside the closed form, on few images.

    Args:
        model: the network's factory; it takes `width`. Three layers in the NTK parametrization unless given.
        dataset: factory of the data.
        widths: hidden units of a layer.
        threshold_width: width at which rates below and above the critical one are tried.
        threshold_steps: updates at either rate.
        entropy_widths: widths of the arm with cross-entropy and momentum.
        standard_widths: widths of the arm in the standard parametrization, where half the critical rate falls as
            1 / width.
        exact_width: width at which the closed form is compared with the trained linearization in double precision.
        classes: how many classes, the first ones.
        n: training images, and as many to test on.
        steps: updates, full-batch, at half the critical rate.
        seeds: repetitions, each with images and networks of its own.
    """
    largest = min(threshold_width, max(widths))
    arms = {  # the longest first
        "threshold": ([largest], threshold_steps),
        "squares": (sorted(widths)[::-1], steps),
        "entropy": (sorted(entropy_widths)[::-1], steps),
        "standard": (sorted(standard_widths)[::-1], steps),
        "exact": ([exact_width], steps),
    }
    common = dict(model=model, dataset=dataset, classes=classes, n=n)
    asked = [(what, width, seed) for what, (of, _) in arms.items() for width in of for seed in range(seeds)]
    cells = [dict(what=what, width=width, steps=arms[what][1], seed=seed, **common) for what, width, seed in asked]
    found = dict(zip(asked, lab.map(one_network, cells), strict=True))

    def gathered(what: str, axis: str = "width") -> xr.Dataset:
        of = sorted(arms[what][0])
        by_width = [
            xr.concat([found[what, width, seed] for seed in range(seeds)], "seed", combine_attrs="drop") for width in of
        ]
        return xr.concat(by_width, axis).assign_coords({axis: of, "seed": range(seeds)})

    result = xr.merge([gathered("squares"), *(gathered(w).squeeze("width", drop=True) for w in ("exact", "threshold"))])
    for what, of in (("entropy", entropy_widths), ("standard", standard_widths)):
        if of:
            result = result.merge(gathered(what, f"{what}_width"))
    return result.assign_attrs(threshold_width=largest, threshold_steps=threshold_steps)


def one_network(lab, *, what, model, dataset, width, classes, n, steps, seed) -> xr.Dataset:
    """One width and seed of one arm."""
    arms = {"squares": squares, "threshold": threshold, "entropy": entropy, "standard": standard, "exact": exact}
    (x, y), (test, _) = bench.few_examples(lab, dataset, n=n, classes=classes, seed=seed)
    if what == "exact":
        x, y, test = x.double(), y.double(), test.double()
    factory = bench.standard_mlp if what == "standard" else model
    network = bench.network(lab, factory, (x, y), width=width, seed=seed)
    return arms[what](network, (x, y), test, bench.critical_rate(network, x), steps)


def squares(network, pair, test, critical, steps) -> xr.Dataset:
    """Half the critical rate: the network, its linearization and the closed form, on the test images."""
    report = beside(network, pair, test, steps=steps, lr=0.5 * critical)
    closed = closed_form(network, pair, test, steps=steps, lr=0.5 * critical)
    ours = report.outputs.values
    gap = np.sqrt(((closed.numpy() - ours) ** 2).mean((1, 2))) / ours.std((1, 2))
    return xr.Dataset(
        {
            "deviation": report.deviation,
            "closed_form_gap": ("step", gap),
            "parameter_change": report.parameter_change.isel(step=-1, drop=True),
            "kernel_change": report.kernel_change.isel(kernel_step=-1, drop=True),
            "loss_left": float(report.loss[-1] / report.loss[0]),
            "critical_rate": critical,
            "sufficient_rate": bench.sufficient_rate(network, pair[0]),
        }
    )


def threshold(network, pair, test, critical, steps) -> xr.Dataset:
    """A rate below and one above the critical one: how large the losses grow, and how far the two part."""
    factors, rows = (BELOW, ABOVE), []
    for factor in factors:
        report = beside(network, pair, test, steps=steps, lr=factor * critical, kernel_at=())
        growth = [float((report[name] / report[name][0]).max(skipna=False)) for name in ("loss", "linear_loss")]
        rows.append([*growth, float(report.deviation.max(skipna=False))])
    names = ("loss_growth", "linear_loss_growth", "farthest")
    return xr.Dataset(
        {name: ("factor", [row[i] for row in rows]) for i, name in enumerate(names)}, {"factor": list(factors)}
    )


def exact(network, pair, test, critical, steps) -> xr.Dataset:
    """The closed form against training the linearization, on the test images, relative to the outputs' norm."""
    report = beside(network, pair, test, steps=steps, lr=0.5 * critical, kernel_at=())
    closed = closed_form(network, pair, test, steps=steps, lr=0.5 * critical)
    theirs = torch.as_tensor(report.linear_outputs.values)
    error = (closed - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    return xr.Dataset({"closed_form_error": float(error.max())})


def entropy(network, pair, test, critical, steps) -> xr.Dataset:
    """Cross-entropy and momentum 0.9, at a rate that is half the critical one once momentum has built up."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.05 * critical, momentum=0.9)
    report = measure.lazy_report(
        network, pair, test, steps=steps, optimizer=optimizer, loss_fn=bench.entropy_sum, kernel_at=()
    )
    return xr.Dataset({"entropy_deviation": report.deviation})


def standard(network, pair, test, critical, steps) -> xr.Dataset:
    """The first arm without its closed form, for weights that bear their own scale."""
    report = beside(network, pair, test, steps=steps, lr=0.5 * critical, kernel_at=())
    change = report.parameter_change.isel(step=-1, drop=True).rename(parameter="standard_parameter")
    return xr.Dataset({"standard_distance": report.deviation, "standard_change": change, "standard_rate": critical})


def beside(network, pair, test, *, steps, lr, kernel_at=None) -> xr.Dataset:
    """The network and its linearization under full-batch descent on the sum of squares."""
    optimizer = functools.partial(torch.optim.SGD, lr=lr)
    return measure.lazy_report(
        network, pair, test, steps=steps, optimizer=optimizer, loss_fn=bench.half_squares, kernel_at=kernel_at
    )


def closed_form(network, pair, test, *, steps, lr) -> torch.Tensor:
    """(steps + 1, n, classes): the outputs of the linearization on the test images, step by step."""
    x, y = pair
    return kernels.linear_prediction(network, x, y, test, range(steps + 1), lr=lr, flow=False).cpu()


@study.claim("error-falls-with-width")
def deviation_slope(result: xr.Dataset) -> xr.DataArray:
    return slope_by_width(result, result.deviation.max("step"))


@study.claim("ntk-freezes")
def kernel_slope(result: xr.Dataset) -> xr.DataArray:
    slopes = slope_by_width(result, result.kernel_change)
    return slopes.mean("seed") if "seed" in slopes.dims else slopes


@study.claim("closed-form-tracks-linear")
def closed_form_against_linear(result: xr.Dataset) -> xr.DataArray:
    return result.closed_form_error.mean("seed")


@study.claim("closed-form-tracks-network")
def closed_form_against_network(result: xr.Dataset) -> xr.DataArray:
    if 1024 not in result.width:
        return not_applicable("width 1024 was not run")
    return result.closed_form_gap.sel(width=1024, drop=True).max("step").mean("seed")


@study.claim("lr-threshold-below")
def stable_below(result: xr.Dataset) -> xr.DataArray:
    return at_1024(result, (result.loss_growth.sel(factor=BELOW, drop=True) < 10).mean("seed"))


@study.claim("lr-threshold-above")
def linear_diverges_above(result: xr.Dataset) -> xr.DataArray:
    # a loss that is no longer a number has exceeded every bound
    return at_1024(result, (~(result.linear_loss_growth.sel(factor=ABOVE, drop=True) <= 10)).mean("seed"))


@study.claim("lr-threshold-departure")
def departure_above(result: xr.Dataset) -> xr.DataArray:
    above, below = (result.farthest.sel(factor=factor, drop=True) for factor in (ABOVE, BELOW))
    return at_1024(result, (above / below).min("seed"))


def at_1024(result: xr.Dataset, value: xr.DataArray) -> xr.DataArray:
    """The value, if it was measured as the claims on rates say."""
    if result.attrs["threshold_width"] != 1024 or result.attrs["threshold_steps"] != 100:
        return not_applicable("100 steps at width 1024 were not run")
    return value


def slope_by_width(result: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """The exponent of a power law in the width, 32 to 1024, seed by seed."""
    widths = result.width.values[(result.width >= 32) & (result.width <= 1024)]
    if len(widths) < 3:
        return not_applicable("a slope needs three widths between 32 and 1024")
    return xr.apply_ufunc(
        lambda of_seed: stats.loglog_slope(widths, of_seed).estimate, values.sel(width=widths),
        input_core_dims=[["width"]], vectorize=True,
    )  # fmt: skip


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """What shrinks with the width, and the distance to the linearization over time."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 2, subplot_titles=("largest or final, by width", "distance on test images over training")
    )
    shown = {
        "distance to the linearization": result.deviation.max("step"),
        "change of the tangent kernel": result.kernel_change,
        "change of the hidden weights": result.parameter_change.isel(parameter=min(2, result.sizes["parameter"] - 1)),
    }
    for (name, values), color in zip(shown.items(), ("46, 124, 196", "214, 104, 44", "122, 92, 170"), strict=True):
        mean = values.mean("seed")
        drawing.add_scatter(
            x=result.width, y=mean, mode="lines+markers", name=name, line={"color": f"rgb({color})"},
            error_y={"type": "data", "array": values.std("seed").values, "thickness": 1}, row=1, col=1,
        )  # fmt: skip
    for number, width in enumerate(result.width.values):
        shade = 215 - int(175 * number / max(1, len(result.width) - 1))
        drawing.add_trace(
            go.Scatter(
                x=result.step, y=result.deviation.sel(width=width).mean("seed"), name=f"width {width}",
                line={"color": f"rgb({shade}, {shade}, {shade})"},
            ),
            row=1, col=2,
        )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width", tickvals=result.width.values, row=1, col=1)
    drawing.update_xaxes(title_text="step", row=1, col=2)
    drawing.update_yaxes(type="log")
    return drawing
