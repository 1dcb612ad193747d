"""Deep double descent: where bigger models and more data hurt (Nakkiran, Kaplun, Bansal et al., ICLR 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ... import data, measure, train
from ...lab import Study, not_applicable
from ...measure.sweeps.bias_variance import squared_error
from ..benches import width_sweep as bench

if TYPE_CHECKING:
    import plotly.graph_objects

NOISE = 0.2
LOOKS = 12  # moments at which a training is looked at, evenly spaced in log time

study = Study(
    "double-descent",
    smoke=dict(widths=(8, 32, 256), steps=300, seeds=2),
    gpu=dict(widths=(*bench.WIDTHS, 1024, 2048), steps=6000, seeds=30),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    widths: tuple[int, ...] = bench.WIDTHS,
    samples: int = 300,
    fewer_samples: int = 100,
    steps: int = 1500,
    seeds: int = 10,
) -> xr.Dataset:
    """Trains networks of many widths on few samples with wrong labels until nothing changes, and tests them.

    Args:
        model: the network's factory; it takes `width`.
        dataset: factory of the data.
        widths: of the networks.
        samples: to train on, another random choice for every seed.
        fewer_samples: of the smaller training set, the first of the same choice.
        steps: full-batch updates of each training.
        seeds: repetitions.
    """
    arms = [(samples, (NOISE, 0.0)), (fewer_samples, (NOISE,))]
    common = dict(model=model, dataset=dataset, steps=steps, seeds=seeds)
    cells = [
        dict(width=width, n=n, noises=noises, **common) for width in sorted(widths, reverse=True) for n, noises in arms
    ]
    found = lab.map(one_width, cells)
    noisy, few = (
        xr.concat([each for each, cell in zip(found, cells, strict=True) if cell["n"] == n], "width").sortby("width")
        for n, _ in arms
    )
    parts = {
        "noisy labels": noisy.sel(noise=NOISE, drop=True),
        "clean labels": noisy.sel(noise=0.0, drop=True),
        "fewer samples": few.sel(noise=NOISE, drop=True),
    }
    sizes = [samples, samples, fewer_samples]
    together = xr.concat(list(parts.values()), "arm").assign_coords(arm=list(parts), n=("arm", sizes))
    return together.rename(repeat="seed", test_loss="test_mse")


def one_width(lab, *, model, dataset, width, n, noises, steps, seeds) -> xr.Dataset:
    """Networks of one width and training-set size: every seed and share of wrong labels in one fleet."""
    split = data.load(dataset, generator=lab.seed("split")).to(lab.device)
    moments = np.unique(np.geomspace(1, steps, LOOKS).round().astype(int))
    found = measure.double_descent(
        model, split.train, split.test, widths=(width,), ns=(n,), label_noise=noises, repeats=seeds, steps=steps,
        at=moments, optimizer=bench.ADAM, schedule=train.linear_decay(steps), loss_fn=squared_error,
        batch_size=None, generator=lab.seed("draws"), device=lab.device,
    )  # fmt: skip
    return found.squeeze("n", drop=True)


SHORT = (
    "1,500 steps with a rate that falls to zero end near the threshold before the narrow networks have converged, and "
    "the height of the peak differs much between seeds. With `--set steps=6000` the test MSE at width 16 triples."
)


@study.claim("model-wise-peak-above-wide", note=SHORT)
def peak_above_wide(result: xr.Dataset) -> xr.DataArray:
    return above_wide(result, "noisy labels")


@study.claim("model-wise-peak-above-narrow", note=SHORT)
def peak_above_narrow(result: xr.Dataset) -> xr.DataArray:
    curve = final(result, "noisy labels").test_mse
    peak = bench.peak_width(curve)
    if peak is None:
        return not_applicable("a peak needs at least three widths")
    return at(curve, peak) - at(curve, bench.first_descent_width(curve, peak))


@study.claim("peak-at-interpolation")
def peak_over_threshold(result: xr.Dataset) -> xr.DataArray:
    arm = final(result, "noisy labels")
    ratios = []
    for seed in arm.seed.values:
        one = arm.sel(seed=seed)
        peak, threshold = bench.peak_width(one.test_mse), bench.threshold_width(one.train_error)
        if peak is None or np.isnan(threshold):
            return not_applicable(f"seed {seed} has no inner width, or no width fits its training set")
        ratios.append(np.log2(peak / threshold))
    return xr.DataArray(np.median(ratios))


@study.claim(
    "noise-raises-the-peak",
    note="Without noise there is no peak here: test MSE falls with width nearly all the way, and the largest inner "
    "value, which stands for the peak, is that of the second narrowest network, far from any threshold. With "
    "`--set steps=6000` the test MSE at width 16 is 2.9 with noise and 0.6 without.",
)
def peak_by_noise(result: xr.Dataset) -> xr.DataArray:
    noisy, clean = above_wide(result, "noisy labels"), above_wide(result, "clean labels")
    if "not_applicable" in noisy.attrs:
        return noisy
    return noisy - clean


@study.claim(
    "peak-moves-with-n",
    note="The threshold itself hardly moves: training error falls below 0.1 near width 15 with 100 samples and near 18 "
    "with 300, and with `--set steps=6000` both curves peak at width 16. With 1,500 steps the curve of 300 samples is "
    "flat between widths 16 and 64, so that the place of its peak is left to chance.",
)
def peak_by_samples(result: xr.Dataset) -> xr.DataArray:
    more, fewer = (bench.peak_width(final(result, arm).test_mse) for arm in ("noisy labels", "fewer samples"))
    if more is None or fewer is None:
        return not_applicable("a peak needs at least three widths")
    return xr.DataArray(more / fewer)


def final(result: xr.Dataset, arm: str) -> xr.Dataset:
    """An arm at the end of its training."""
    return result.sel(arm=arm, drop=True).isel(step=-1, drop=True)


def at(curve: xr.DataArray, width: int) -> xr.DataArray:
    return curve.sel(width=width, drop=True)


def above_wide(result: xr.Dataset, arm: str) -> xr.DataArray:
    """Test MSE at the peak of the mean curve minus at width 512, seed by seed."""
    curve = final(result, arm).test_mse
    peak = bench.peak_width(curve)
    if peak is None or 512 not in curve.width:
        return not_applicable("a peak needs at least three widths, and width 512 among them")
    return at(curve, peak) - at(curve, 512)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test MSE, test error and training error by width for every arm; test MSE over time by width."""
    from plotly.subplots import make_subplots

    titles = ("test MSE", "test error; training error dotted", "test MSE over time, noisy labels")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    colors = ("rgb(214, 104, 44)", "rgb(46, 124, 196)", "rgb(122, 92, 170)")
    for arm, n, color in zip(result.arm.values, result.n.values, colors, strict=True):
        last = final(result, arm)
        for column, name, dash in ((1, "test_mse", "solid"), (2, "test_error", "solid"), (2, "train_error", "dot")):
            drawing.add_scatter(
                x=last.width, y=last[name].mean("seed"), mode="lines", line={"color": color, "dash": dash},
                name=f"{arm}, n = {n}", legendgroup=str(arm), showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    over_time = result.test_mse.sel(arm="noisy labels").mean("seed")
    for place, width in enumerate(over_time.width.values):
        strength = 0.2 + 0.8 * place / max(1, over_time.sizes["width"] - 1)
        drawing.add_scatter(
            x=over_time.step, y=over_time.sel(width=width), mode="lines", name=f"width {width}", showlegend=False,
            line={"color": f"rgba(214, 104, 44, {strength:.2f})"}, row=1, col=3,
        )  # fmt: skip
    drawing.update_xaxes(type="log")
    drawing.update_yaxes(type="log", col=3)
    for column in (1, 2):
        drawing.update_xaxes(title_text="width", col=column)
    drawing.update_xaxes(title_text="step", col=3)
    return drawing
