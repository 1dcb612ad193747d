"""Finite depth and width corrections to the neural tangent kernel (Hanin and Nica, ICLR 2020).

Networks z = sqrt(2 / fan-in) W h of d hidden ReLU layers without biases, a linear output v . h / sqrt(n), all weights
N(0, 1) and trained, inputs with |x|^2 as large as their number. Their tangent kernel K(x, x) is a sum over layers of
squared norms from one forward and one backward pass; a step of descent adds an outer product to every matrix, so that
the kernel after it needs no new ones.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ... import stats, theory
from ...core.random import seeded
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

WIDTHS, NETS, BETAS = (16, 32, 64), (20_000, 8_000, 3_000), (1 / 32, 1 / 16, 1 / 8, 1 / 4)
RESAMPLES = 2000
_NUMBERS = 2**24  # of weights held at once

study = Study(
    "ntk-finite-depth-width",
    smoke=dict(widths=(16,), nets=(2000,), uneven=()),
    gpu=dict(widths=(16, 32, 64, 128, 256), nets=(1_000_000, 400_000, 200_000, 100_000, 20_000)),
)


@study.experiment
def experiment(
    lab,
    *,
    widths: tuple[int, ...] = WIDTHS,
    nets: tuple[int, ...] = NETS,
    betas: tuple[float, ...] = BETAS,
    fixed_depth: int = 4,
    uneven: tuple[int, ...] = (32, 8, 32, 8),
    rate: float = 0.1,
    inputs: int = 16,
) -> xr.Dataset:
    """Draws thousands of networks at each depth and width: the spread of their tangent kernels, and what a step does.

    Args:
        widths: hidden units of a layer.
        nets: networks of each width.
        betas: depths divided by width; those that make no whole depth are left out.
        fixed_depth: depth that all widths have in common.
        uneven: widths of one more network whose layers differ; none if empty.
        rate: learning rate of the step times the number of layers; its target is drawn from N(0, 1).
        inputs: numbers in an input.
    """
    shapes = [
        ([width] * depth, count)
        for width, count in zip(widths, nets, strict=True)
        for depth in sorted({round(b * width) for b in betas if (b * width).is_integer() and b > 0} | {fixed_depth})
    ]
    if uneven:
        near = min(range(len(widths)), key=lambda i: abs(widths[i] - max(uneven)))
        shapes.append((list(uneven), nets[near]))
    shapes.sort(key=lambda each: -each[1] * sum(n * n for n in each[0]))  # the longest first
    cells = [dict(shape=shape, nets=count, rate=rate, inputs=inputs) for shape, count in shapes]
    found = xr.concat(lab.map(one_shape, cells), "shape", coords=["name", "depth", "width", "beta"])
    return found.sortby(["width", "depth"])


def one_shape(lab, *, shape, nets, rate, inputs) -> xr.Dataset:
    """Moments of the kernel over networks of one shape, and its mean change in a step."""
    name = "-".join(map(str, shape))
    before, after = kernels_of(
        shape, nets, rate=rate / (len(shape) + 1), inputs=inputs,
        generator=seeded(lab.seed("networks", name), lab.device),
    )  # fmt: skip
    k = before.cpu().numpy()
    found = stats.bootstrap(k, ratio, resamples=RESAMPLES, generator=lab.seed("bootstrap", name))
    return xr.Dataset(
        {
            "mean": k.mean(), "ratio": found.estimate, "ratio_low": found.low, "ratio_high": found.high,
            "predicted": theory.ntk_fluctuation(shape), "variation": k.std() / k.mean(), "nets": nets,
            "change": float((after - before).mean() / before.mean()),
        },
        {
            "name": name, "depth": len(shape), "width": shape[0] if len(set(shape)) == 1 else 0,
            "beta": sum(1 / n for n in shape),
        },
    )  # fmt: skip


def ratio(k: np.ndarray, axis: int = -1) -> np.ndarray:
    """E K^2 / (E K)^2."""
    return (k**2).mean(axis) / k.mean(axis) ** 2


def kernels_of(
    shape: list[int], nets: int, *, rate: float, inputs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """K(x, x) of as many random networks, before and after a step on (f - y)^2 / 2, in double precision."""
    sizes = list(itertools.pairwise([inputs, *shape]))
    some = max(1, _NUMBERS // max(1, sum(into * out for into, out in sizes)))
    before, after = [], []
    for start in range(0, nets, some):
        count = min(some, nets - start)

        def draw(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, device=generator.device, dtype=torch.float64)

        x = draw(count, inputs)
        x = x * math.sqrt(inputs) / x.norm(dim=1, keepdim=True)
        weights = [draw(count, out, into) for into, out in sizes]
        old, moved = step(weights, draw(count, ([inputs, *shape])[-1]), x, draw(count), rate)
        before.append(old)
        after.append(moved)
    return torch.cat(before), torch.cat(after)


def step(weights: list[Tensor], last: Tensor, x: Tensor, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """K of each network (B, out, in) and its last weights (B, n), and K after a step on its own x and y."""
    signals, slopes, f = passes(weights, last, x)
    moved = rate * (f - y)[:, None]  # times derivative: what is taken off every weight
    updates = [(moved * slope, scale(h) * h) for slope, h in zip(slopes, signals, strict=False)]
    new = last - moved * signals[-1] / math.sqrt(signals[-1].shape[1])
    again, again_slopes, _ = passes(weights, new, x, updates)
    return kernel(signals, slopes), kernel(again, again_slopes)


def passes(
    weights: list[Tensor], last: Tensor, x: Tensor, updates: list[tuple[Tensor, Tensor]] | None = None
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Every layer's input, the derivatives of the output by pre-activations, and the output; W - a b' in place of W."""
    signals = [x]
    for layer, weight in enumerate(weights):
        h = signals[-1]
        z = torch.bmm(weight, h[:, :, None])[:, :, 0]
        if updates is not None:
            a, b = updates[layer]
            z = z - a * (b * h).sum(1, keepdim=True)
        signals.append(torch.relu(scale(h) * z))
    back = last / math.sqrt(last.shape[1])
    output, slopes = (back * signals[-1]).sum(1), []
    for layer in reversed(range(len(weights))):
        slope = back * (signals[layer + 1] > 0)
        slopes.append(slope)
        back = torch.bmm(slope[:, None, :], weights[layer])[:, 0]
        if updates is not None:
            a, b = updates[layer]
            back = back - b * (a * slope).sum(1, keepdim=True)
        back = scale(signals[layer]) * back
    return signals, slopes[::-1], output


def kernel(signals: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """The sum over layers of the squared norm of the derivative by its weights."""
    total = signals[-1].square().mean(1)
    for h, slope in zip(signals, slopes, strict=False):
        total = total + 2 * h.square().mean(1) * slope.square().sum(1)
    return total


def scale(h: Tensor) -> float:
    """Of a layer with these inputs."""
    return math.sqrt(2 / h.shape[1])


@study.claim("predicted-ratio")
def predicted_ratio(result: xr.Dataset) -> xr.DataArray:
    def largest() -> xr.DataArray:
        cells = even(result, WIDTHS)
        cells = cells.isel(shape=cells.beta.values <= 0.25)
        return abs(np.log(cells.ratio) / np.log(cells.predicted) - 1).max()

    return if_run(result, largest)


@study.claim("ratio-is-function-of-beta")
def same_beta(result: xr.Dataset) -> xr.DataArray:
    def spread() -> float:
        logs = np.log([float(at(result, width, width // 4).ratio) for width in WIDTHS])
        return logs.std(ddof=1) / logs.mean()

    return if_run(result, spread)


@study.claim("not-deterministic-fixed-beta")
def variation_at_beta(result: xr.Dataset) -> xr.DataArray:
    return if_run(result, lambda: at(result, 64, 16).variation / at(result, 16, 4).variation)


@study.claim("not-deterministic-size")
def smallest_variation(result: xr.Dataset) -> xr.DataArray:
    return if_run(result, lambda: min(float(at(result, width, width // 4).variation) for width in WIDTHS))


@study.claim("not-deterministic-fixed-depth")
def variation_at_depth(result: xr.Dataset) -> xr.DataArray:
    return if_run(result, lambda: at(result, 64, 4).variation / at(result, 16, 4).variation)


@study.claim("kernel-moves-fixed-depth")
def change_at_depth(result: xr.Dataset) -> xr.DataArray:
    return if_run(result, lambda: slope_of_change(result, [4, 4, 4]))


@study.claim("kernel-moves-fixed-beta")
def change_at_beta(result: xr.Dataset) -> xr.DataArray:
    quarter = [width // 4 for width in WIDTHS]
    return if_run(result, lambda: slope_of_change(result, quarter) - slope_of_change(result, [4, 4, 4]))


def even(result: xr.Dataset, widths: tuple[int, ...]) -> xr.Dataset:
    """Networks whose layers have one of these widths."""
    return result.isel(shape=np.isin(result.width.values, widths))


def at(result: xr.Dataset, width: int, depth: int) -> xr.Dataset:
    """The networks of one width and depth."""
    found = np.flatnonzero((result.width.values == width) & (result.depth.values == depth))
    return result.isel(shape=int(found[0])).drop_vars(["name", "depth", "width", "beta"])


def if_run(result: xr.Dataset, value) -> xr.DataArray:
    """The value, if all networks that the claims compare were drawn."""
    there = set(zip(result.width.values.tolist(), result.depth.values.tolist(), strict=True))
    if not all({(width, 4), (width, width // 4)} <= there for width in WIDTHS):
        return not_applicable("depth 4 and a quarter of the width were not run at widths 16, 32 and 64")
    return xr.DataArray(float(value()))


def slope_of_change(result: xr.Dataset, depths: list[int]) -> float:
    """The exponent of the width in |E[K_after - K_before] / E K|."""
    changes = [abs(float(at(result, width, depth).change)) for width, depth in zip(WIDTHS, depths, strict=True)]
    return stats.loglog_slope(WIDTHS, changes).estimate


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The spread of the kernel against depth over width, and how far a step moves it."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(1, 2, subplot_titles=("spread of the kernel", "its change in one step"))
    colors = ("rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(122, 92, 170)", "rgb(46, 150, 88)", "rgb(128, 136, 146)")
    for place, width in enumerate(sorted(set(result.width.values.tolist()), key=lambda n: n or math.inf)):
        rows = even(result, (width,)).sortby("beta")
        name = f"width {width}" if width else f"widths {rows.name.values[0]}"
        common = {"name": name, "legendgroup": name, "mode": "lines+markers", "x": rows.beta.values}
        color = {"color": colors[place % len(colors)]}
        drawing.add_scatter(
            y=rows.ratio.values, line=color, row=1, col=1, **common,
            error_y={
                "type": "data", "array": (rows.ratio_high - rows.ratio).values,
                "arrayminus": (rows.ratio - rows.ratio_low).values, "thickness": 1,
            },
        )  # fmt: skip
        drawing.add_scatter(
            x=rows.beta.values, y=rows.predicted.values, mode="lines", line={**color, "dash": "dot"}, row=1, col=1,
            name="predicted", legendgroup="predicted", showlegend=place == 0,
        )  # fmt: skip
        drawing.add_scatter(y=abs(rows.change).values, line=color, showlegend=False, row=1, col=2, **common)
    drawing.update_xaxes(title_text="sum of inverse widths")
    drawing.update_yaxes(title_text="E K² / (E K)²", row=1, col=1)
    drawing.update_yaxes(type="log", title_text="|mean change| / mean", row=1, col=2)
    return drawing
