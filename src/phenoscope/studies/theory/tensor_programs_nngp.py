"""Tensor Programs I: wide networks of any architecture are Gaussian processes (Yang, NeurIPS 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from ... import kernels, stats
from ...lab import Study, not_applicable
from ..benches import random_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

LENGTHS, COMMON, FEATURES = (5, 6), 3, 16  # the second sequence is the longer one
REGISTERED = 64  # nets that claims are means over
_ELEMENTS = 2**24  # weights drawn at once

study = Study(
    "tensor-programs-nngp",
    smoke=dict(
        widths=(64, 512), nets=16, gru_widths=(128,), attention_widths=(128,), readout_widths=(4, 64), draws=400
    ),
    gpu=dict(
        widths=(64, 128, 256, 512, 1024, 2048, 4096), nets=256, gru_widths=(128, 512, 1024, 2048),
        attention_widths=(128, 512, 2048), readout_widths=(4, 16, 64, 256, 1024), draws=20_000,
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048),
    nets: int = 64,
    gru_widths: tuple[int, ...] = (128, 1024),
    attention_widths: tuple[int, ...] = (512,),
    readout_widths: tuple[int, ...] = (4, 16, 64, 256),
    draws: int = 4000,
) -> xr.Dataset:
    """Draws recurrent, gated and attentive networks, and compares their second moments with the infinite ones.

    Two sequences of 5 and 6 Gaussian tokens, three of them in common, go through networks of erf units whose weights
    all have variance one over fan-in; the attention block is the one of `kernels.attention_program`.

    Args:
        widths: units of simple recurrent networks.
        nets: networks of each kind and width.
        gru_widths: units of gated recurrent networks.
        attention_widths: units of attention blocks.
        readout_widths: units of the recurrent networks whose readouts are tested for being Gaussian.
        draws: how many of those networks there are of each width.
    """
    arms: dict[str, tuple[tuple[int, ...], int]] = {
        "rnn": (widths, nets), "readout": (readout_widths, draws), "gru": (gru_widths, nets),
        "attention": (attention_widths, nets),
    }  # fmt: skip
    asked = [(kind, width, count) for kind, (of, count) in arms.items() for width in sorted(of)[::-1]]
    cells = [dict(kind=kind, width=width, nets=count) for kind, width, count in asked]
    found = lab.map(sampled, cells)
    (result,) = lab.map(infinite, [{}])
    for kind, (of, _) in arms.items():
        some = {width: part for (name, width, _), part in zip(asked, found, strict=True) if name == kind}
        axis = f"{kind}_width"
        result = result.merge(xr.concat([some[w] for w in sorted(of)], axis).assign_coords({axis: sorted(of)}))
    return result


def tokens(lab) -> tuple[Tensor, Tensor]:
    """The two sequences."""
    return bench.overlapping_sequences(LENGTHS, common=COMMON, features=FEATURES, generator=lab.seed("tokens"))


def infinite(lab) -> xr.Dataset:
    """The kernels at infinite width; of recurrent networks also those with other weights at every step."""
    pair = tokens(lab)
    found = {
        "rnn": kernels.rnn_nngp(pair),
        "untied": kernels.rnn_nngp(pair, tied=False),
        "untied_recurrence": kernels.netsor(lambda lines: untied_recurrence(lines, pair)),
        "gru": kernels.gru_nngp(pair),
        "attention": kernels.netsor(kernels.attention_program(pair)),
    }
    return xr.Dataset({f"{name}_limit": (("token", "other"), kernel.numpy()) for name, kernel in found.items()})


def untied_recurrence(lines, pair) -> list:
    """A recurrent network with a W of its own at every step, but one U: inputs alone correlate its steps."""
    x = torch.cat(pair).double()
    into, place = lines.inputs(x @ x.T / FEATURES), 0
    states: list = []
    for length in LENGTHS:
        for step in range(length):
            before = [] if step == 0 else [lines.matmul(f"W_{step}", states[-1])]
            states.append(lines.apply("erf", lines.combine([into[place], *before], [1.0] * (1 + len(before)))))
            place += 1
    return states


def sampled(lab, *, kind, width, nets) -> xr.Dataset:
    """Networks of one kind and width: their second moments between tokens, or how Gaussian their readouts are."""
    pair = [part.to(lab.device) for part in tokens(lab)]
    generator = torch.Generator(lab.device).manual_seed(lab.seed(kind, width))
    forward = {"rnn": rnn, "readout": rnn, "gru": gru, "attention": attention}[kind]
    states = chunks(forward, pair, width=width, nets=nets, generator=generator)
    if kind != "readout":
        moments = torch.cat([part @ part.mT / width for part in states])
        return xr.Dataset({f"{kind}_kernel": (("net", "token", "other"), moments.double().cpu().numpy())})
    readouts = []
    for part in states:
        v = torch.randn(len(part), width, 1, generator=generator, device=lab.device)
        readouts.append((part @ v).squeeze(2) / math.sqrt(width))
    root = torch.linalg.cholesky(kernels.rnn_nngp(pair))
    whitened = torch.linalg.solve_triangular(root, torch.cat(readouts).double().T, upper=False)
    squares = whitened.square().sum(0)
    p = len(root)
    return xr.Dataset(
        {"kurtosis_excess": float((squares**2).mean() / (p * (p + 2)) - 1), "squared_length": float(squares.mean() / p)}
    )


def chunks(forward: Callable[..., Tensor], pair, *, width, nets, generator) -> Iterator[Tensor]:
    """(some, tokens, width) states of so many networks as fit, until there are enough."""
    size = max(1, _ELEMENTS // width**2)
    for start in range(0, nets, size):
        count = min(size, nets - start)

        def weights(inputs: int, count: int = count) -> Tensor:
            drawn = torch.randn(count, width, inputs, generator=generator, device=generator.device)
            return drawn / math.sqrt(inputs)

        yield forward(weights, pair, width)


def rnn(weights: Callable[[int], Tensor], pair, width) -> Tensor:
    """s_t = erf(W s_{t-1} + U x_t)."""
    w, u = weights(width), weights(FEATURES)
    return over_time(lambda x, s: torch.erf(u @ x if s is None else w @ s + u @ x), pair)


def gru(weights: Callable[[int], Tensor], pair, width) -> Tensor:
    """h_t = (1 - z) h_{t-1} + z erf(W (r h_{t-1}) + U x_t), with gates z and r of (1 + erf) / 2."""
    inputs, recurrent = ([weights(size) for _ in range(3)] for size in (FEATURES, width))

    def step(x: Tensor, h: Tensor | None) -> Tensor:
        if h is None:
            h = torch.zeros_like(inputs[0] @ x)
        z, r = ((1 + torch.erf(u @ x + w @ h)) / 2 for u, w in zip(inputs[:2], recurrent[:2], strict=True))
        return (1 - z) * h + z * torch.erf(inputs[2] @ x + recurrent[2] @ (r * h))

    return over_time(step, pair)


def over_time(step: Callable[[Tensor, Tensor | None], Tensor], pair) -> Tensor:
    """The states of both sequences, side by side as long as both last; (nets, tokens, width) in sequence order."""
    by_step: list[Tensor] = []
    for t in range(max(LENGTHS)):
        going = [x for x in pair if len(x) > t]
        state = by_step[-1][..., -len(going) :] if by_step else None
        by_step.append(step(torch.stack([x[t] for x in going], 1), state))
    first, second = ([part[..., i] for part in by_step[:length]] for i, length in zip((0, -1), LENGTHS, strict=True))
    return torch.stack([*first, *second], 1)


def attention(weights: Callable[[int], Tensor], pair, width) -> Tensor:
    """One block: h = LN(k + causal attention of k to k, scores over n), LN(h + W2 relu(W1 h))."""
    u, w1, w2 = weights(FEATURES), weights(width), weights(width)
    out = []
    for x in pair:
        k = x @ u.mT
        later = torch.ones(len(x), len(x), device=x.device).triu(1).bool()
        scores = (k @ k.mT / width).masked_fill(later, -math.inf)
        h = functional.layer_norm(k + scores.softmax(-1) @ k, (width,))
        out.append(functional.layer_norm(h + torch.relu(h @ w1.mT) @ w2.mT, (width,)))
    return torch.cat(out, 1)


@study.claim("rnn-rate-slope")
def rate(result: xr.Dataset) -> xr.DataArray:
    at = [width for width in result.rnn_width.values if 64 <= width <= 2048]
    if not {64, 2048} <= set(at):
        return not_applicable("widths from 64 to 2048 were not run")
    return averaged(
        result, lambda nets: xr.DataArray(stats.loglog_slope(at, single_errors(nets).sel(rnn_width=at)).estimate)
    )


@study.claim("rnn-rate-error")
def error_of_one(result: xr.Dataset) -> xr.DataArray:
    return at_width(result, "rnn", 2048, single_errors)


@study.claim("sharing-matters")
def sharing(result: xr.Dataset) -> xr.DataArray:
    return at_width(result, "rnn", 1024, lambda nets: mean_error(nets, "rnn") / mean_error(nets, "rnn", "untied"))


@study.claim("gru-and-attention-gru")
def gru_error(result: xr.Dataset) -> xr.DataArray:
    return at_width(result, "gru", 1024, lambda nets: mean_error(nets, "gru"))


@study.claim("gru-and-attention-attention")
def attention_error(result: xr.Dataset) -> xr.DataArray:
    return at_width(result, "attention", 512, lambda nets: mean_error(nets, "attention"))


@study.claim("joint-gaussian-decreasing")
def steadily_more_gaussian(result: xr.Dataset) -> xr.DataArray:
    registered = [4, 16, 64, 256]
    if not set(registered) <= set(result.readout_width.values):
        return not_applicable("widths 4, 16, 64 and 256 were not run")
    return result.kurtosis_excess.sel(readout_width=registered).diff("readout_width").max("readout_width")


@study.claim("joint-gaussian-excess")
def excess(result: xr.Dataset) -> xr.DataArray:
    return at_readout_width(result, "kurtosis_excess")


@study.claim("joint-gaussian-scale")
def scale(result: xr.Dataset) -> xr.DataArray:
    return at_readout_width(result, "squared_length")


def at_readout_width(result: xr.Dataset, name: str, width: int = 256) -> xr.DataArray:
    if width not in result.readout_width:
        return not_applicable(f"width {width} was not run")
    return result[name].sel(readout_width=width, drop=True)


def at_width(result: xr.Dataset, kind: str, width: int, observe) -> xr.DataArray:
    """What is observed of the registered number of networks of a kind and width."""
    if width not in result[f"{kind}_width"]:
        return not_applicable(f"width {width} was not run")
    return averaged(result.sel({f"{kind}_width": width}, drop=True), observe)


def averaged(result: xr.Dataset, observe) -> xr.DataArray:
    if result.sizes["net"] < REGISTERED:
        return not_applicable(f"{REGISTERED} networks were not drawn")
    return observe(result.isel(net=slice(REGISTERED)))


def single_errors(result: xr.Dataset) -> xr.DataArray:
    """The relative Frobenius error of one recurrent network's kernel, mean over networks."""
    return bench.relative_error(result.rnn_kernel, result.rnn_limit).mean("net")


def mean_error(result: xr.Dataset, kind: str, limit: str | None = None) -> xr.DataArray:
    """The relative Frobenius error of the kernel averaged over networks."""
    return bench.relative_error(result[f"{kind}_kernel"].mean("net"), result[f"{limit or kind}_limit"])


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """How far single networks are from the limit, and how far their readouts from Gaussian, by width."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 2, subplot_titles=("relative error of a network's kernel", "excess kurtosis of readouts, relative")
    )
    for kind, color in zip(("rnn", "gru", "attention"), ("46, 124, 196", "214, 104, 44", "122, 92, 170"), strict=True):
        errors = bench.relative_error(result[f"{kind}_kernel"], result[f"{kind}_limit"])
        mean = errors.mean("net")
        drawing.add_scatter(
            x=result[f"{kind}_width"], y=mean, mode="lines+markers", name=kind, line={"color": f"rgb({color})"},
            error_y={"type": "data", "array": errors.std("net").values, "thickness": 1}, row=1, col=1,
        )  # fmt: skip
        if kind == "rnn":
            drawing.add_scatter(
                x=result.rnn_width, y=mean[0] * np.sqrt(result.rnn_width[0] / result.rnn_width), mode="lines",
                name="one over the root of the width", line={"color": "gray", "dash": "dot"}, row=1, col=1,
            )  # fmt: skip
    drawing.add_scatter(
        x=result.readout_width, y=result.kurtosis_excess, mode="lines+markers", name="rnn, all steps jointly",
        line={"color": "rgb(46, 124, 196)", "dash": "dash"}, row=1, col=2,
    )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width")
    drawing.update_yaxes(type="log", row=1, col=1)
    return drawing
