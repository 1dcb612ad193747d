"""Scaling limits of wide networks with weight sharing: gradient independence, recurrent NTK (Yang, 2019)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, kernels, measure, models, stats, theory
from ...core.random import child_seeds
from ...lab import Study, not_applicable
from ...models.ntk import NTKLinear
from ..benches import random_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

FEATURES = 16
EQUAL, DIFFERENT = (4, 4), (5, 6)  # lengths of pairs of sequences
REGISTERED = 32  # nets that claims are means over
READOUTS: tuple[Literal["random", "mean"], ...] = ("random", "mean")
ACTIVATIONS = {
    "relu": theory.activation("relu"),
    "erf": theory.activation("erf"),
    "square": theory.Activation("square", lambda h: h**2 / math.sqrt(2), lambda h: math.sqrt(2) * h),
}
mlp = functools.partial(models.mlp, depth=5, init=functools.partial(models.init_gaussian, sigma_w2=2.0, sigma_b2=0.0))


class Recurrent(nn.Module):
    """v . s_T / sqrt(n) with s_t = f(W s_{t-1} + U x_t), in the NTK parametrization; sequences (N, T, d)."""

    def __init__(self, features: int, outputs: int, width: int, act: str) -> None:
        super().__init__()
        self.into, self.again = NTKLinear(features, width), NTKLinear(width, width)
        self.readout = NTKLinear(width, outputs)
        self.act = theory.activation(act).function

    def forward(self, x: Tensor) -> Tensor:
        first, *later = x.unbind(1)
        state = self.act(self.into(first))
        for token in later:
            state = self.act(self.again(state) + self.into(token))
        return self.readout(state)


def recurrent(shape, num_classes, *, width, act, generator=None) -> nn.Module:
    """A network of the class above, all variances one and no biases."""
    network = Recurrent(shape[-1], num_classes, width, act)
    models.init_gaussian(network, sigma_w2=1.0, sigma_b2=0.0, generator=generator)
    return network


erf_rnn, tanh_rnn = (functools.partial(recurrent, act=name) for name in ("erf", "tanh"))

study = Study(
    "tensor-programs-gradients",
    smoke=dict(layer_widths=(256,), draws=5, width=128, inits=4, ntk_widths=(64, 256), nets=4, pairs=2),
    gpu=dict(
        layer_widths=(256, 1024, 2048, 4096, 8192), draws=50, width=2048, inits=50,
        ntk_widths=(64, 128, 256, 512, 1024, 2048), nets=64,
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=data.digits,
    layer_widths: tuple[int, ...] = (256, 1024, 2048),
    draws: int = 20,
    width: int = 512,
    inits: int = 20,
    ntk_widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    nets: int = 32,
    pairs: int = 10,
) -> xr.Dataset:
    """Measures gradients behind one layer, gradients through borrowed weights, and tangent kernels of recurrent nets.

    Args:
        model: factory of the network whose gradients go through its own and through borrowed weights; it takes
            `width`. Five hidden layers of ReLU unless given.
        dataset: factory of the data that go through it.
        layer_widths: units of both sides of the single layer.
        draws: of that layer, at each width.
        width: units of the deep and of the recurrent network.
        inits: how many of each.
        ntk_widths: units of the recurrent networks whose tangent kernels are taken.
        nets: how many of them, at each width.
        pairs: of sequences of 5 and 6 tokens, on which weights shared over time are told from others at every step;
            several, since on one it hangs on where its common tokens stand: a first trial with one pair gave 0.006.
    """
    units, kernel_units = sorted(layer_widths), sorted(ntk_widths)
    asked_kernels = [dict(width=each, nets=nets, pairs=pairs) for each in kernel_units[::-1]]
    tangent = lab.map(tangent_kernels, asked_kernels)[::-1]
    single = lab.map(one_layer, [dict(width=each, draws=draws) for each in units[::-1]])[::-1]
    arms = {"mlp": (model, dataset), "rnn": (tanh_rnn, None)}
    asked = [(name, readout) for name in arms for readout in READOUTS]
    cells = [
        dict(name=name, make=arms[name][0], dataset=arms[name][1], readout=readout, width=width, inits=inits)
        for name, readout in asked
    ]
    found = dict(zip(asked, lab.map(borrowed, cells), strict=True))
    (limits,) = lab.map(infinite, [dict(pairs=pairs)])
    deep = [
        xr.concat([found[name, readout] for readout in READOUTS], "readout").rename(
            {"layer": f"{name}_layer"} | {each: f"{name}_{each}" for each in found[name, "mean"].data_vars}
        )
        for name in ("mlp", "rnn")
    ]
    return xr.merge(
        [
            xr.concat(single, "layer_width").assign_coords(layer_width=units),
            xr.concat(tangent, "ntk_width").assign_coords(ntk_width=kernel_units),
            *(part.assign_coords(readout=list(READOUTS)) for part in deep),
            limits,
        ]
    )


def one_layer(lab, *, width, draws) -> xr.Dataset:
    """x = f(h1), h2 = W x, L = v . f(h2): mean squares of dL/dx over the two predictions, draw by draw."""
    generator = torch.Generator(lab.device).manual_seed(lab.seed("layer", width))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=lab.device)

    squares = np.empty((len(ACTIVATIONS), len(READOUTS), draws))
    for draw in range(draws):
        h1, w, v = math.sqrt(2) * normal(width), math.sqrt(2 / width) * normal(width, width), normal(width)
        for i, act in enumerate(ACTIVATIONS.values()):
            slope = act.derivative(w @ act.function(h1))
            for j, readout in enumerate((v, torch.ones_like(v))):
                squares[i, j, draw] = float((w.T @ (readout * slope)).square().mean())
    below = [float(theory.gaussian_moments(act, 2.0, power=2)) for act in ACTIVATIONS.values()]
    predicted = [
        [float(theory.backprop_moment(act, 2.0, s, readout=readout)) for readout in READOUTS]
        for act, s in zip(ACTIVATIONS.values(), below, strict=True)
    ]
    coordinates = {"activation": list(ACTIVATIONS), "readout": list(READOUTS), "seed": range(draws)}
    return xr.Dataset(
        {
            "square": (("activation", "readout", "seed"), squares),
            "predicted": (("activation", "readout"), predicted),
        },
        coordinates,
    )


def borrowed(lab, *, name, make, dataset, readout, width, inits) -> xr.Dataset:
    """Squared gradients through a network's own weights over those through another draw's, layer by layer.

    On eight examples, or eight sequences of five Gaussian tokens.
    """
    if dataset is None:
        x = torch.randn(8, 5, FEATURES, generator=torch.Generator().manual_seed(lab.seed("inputs")))
    else:
        x = data.load(dataset, generator=lab.seed("split")).train[0][:8]
    found = measure.gradient_independence(
        functools.partial(make, width=width), x.to(lab.device), readout=readout, repeats=inits,
        generator=lab.seed("borrowed", name, readout),
    )  # fmt: skip
    return found[["ratio", "low", "high", "holds"]]


def tangent_kernels(lab, *, width, nets, pairs) -> xr.Dataset:
    """Tangent kernels of random recurrent networks, on two sequences of one length and pairs of different ones."""
    given = sequences(lab, pairs)
    x = torch.cat([front_padded(pair) for pair in given]).to(lab.device)
    found = []
    for seed in child_seeds(lab.seed("tangent", width), nets):
        network = erf_rnn((DIFFERENT[1], FEATURES), 1, width=width, generator=seed).to(lab.device)
        kernel = kernels.empirical_ntk(network, x, outputs=0).double().cpu()
        found.append(torch.stack([kernel[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] for i in range(len(given))]))
    blocks = torch.stack(found).numpy()
    return xr.Dataset(
        {
            "ntk": (("net", "sequence", "other"), blocks[:, 0]),
            "different_ntk": (("net", "pair", "sequence", "other"), blocks[:, 1:]),
        }
    )


def infinite(lab, *, pairs) -> xr.Dataset:
    """The tangent kernels at infinite width, with weights shared over time and with others at every step."""
    equal, *different = sequences(lab, pairs)

    def limits(tied: bool) -> np.ndarray:
        return torch.stack([kernels.rnn_ntk(pair, tied=tied).ntk for pair in different]).numpy()

    return xr.Dataset(
        {
            "ntk_limit": (("sequence", "other"), kernels.rnn_ntk(equal).ntk.numpy()),
            "different_limit": (("pair", "sequence", "other"), limits(True)),
            "untied_limit": (("pair", "sequence", "other"), limits(False)),
        }
    )


def sequences(lab, pairs: int) -> list[tuple[Tensor, Tensor]]:
    """A pair of sequences of one length with no token in common, and pairs of different lengths with three."""
    equal = bench.overlapping_sequences(EQUAL, common=0, features=FEATURES, generator=lab.seed("equal"))
    different = [
        bench.overlapping_sequences(DIFFERENT, common=3, features=FEATURES, generator=lab.seed("different", pair))
        for pair in range(pairs)
    ]
    return [equal, *different]


def front_padded(pair: tuple[Tensor, Tensor]) -> Tensor:
    """(2, longest, features): zeros before a sequence leave a network of odd units without biases where it starts."""
    return torch.stack([nn.functional.pad(x, (0, 0, DIFFERENT[1] - len(x), 0)) for x in pair])


@study.claim("gia-holds-random-readout")
def independent(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "random", "random")


@study.claim("gia-fails-mean-readout")
def dependent(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "mean", "random")


@study.claim("gia-fails-mean-readout-corrected")
def corrected(result: xr.Dataset) -> xr.DataArray:
    found = ratio(result, "mean", "mean")
    return found.mean("seed") if "seed" in found.dims else found


def ratio(result: xr.Dataset, readout: str, assumed: str) -> xr.DataArray:
    """Measured over predicted mean squares of gradients, ReLU, width 2048."""
    if 2048 not in result.layer_width:
        return not_applicable("width 2048 was not run")
    of = result.sel(layer_width=2048, activation="relu", drop=True)
    return of.square.sel(readout=readout, drop=True) / of.predicted.sel(readout=assumed, drop=True)


@study.claim("rnn-ntk-rate-slope")
def rate(result: xr.Dataset) -> xr.DataArray:
    at = [width for width in result.ntk_width.values if 64 <= width <= 1024]
    if not {64, 1024} <= set(at):
        return not_applicable("widths from 64 to 1024 were not run")
    if result.sizes["net"] < REGISTERED:
        return not_applicable(f"{REGISTERED} networks were not drawn")
    errors = bench.relative_error(result.ntk.isel(net=slice(REGISTERED)), result.ntk_limit).mean("net")
    return xr.DataArray(stats.loglog_slope(at, errors.sel(ntk_width=at)).estimate)


@study.claim("rnn-ntk-rate-error")
def error_of_mean(result: xr.Dataset) -> xr.DataArray:
    return at_1024(result, "ntk", "ntk_limit")


@study.claim("tied-differs-from-untied-size")
def difference_of_limits(result: xr.Dataset) -> xr.DataArray:
    return bench.relative_error(result.untied_limit, result.different_limit)


@study.claim("tied-differs-from-untied-fit")
def fit(result: xr.Dataset) -> xr.DataArray:
    tied, untied = (at_1024(result, "different_ntk", f"{name}_limit") for name in ("different", "untied"))
    return tied if "not_applicable" in tied.attrs else tied / untied


def at_1024(result: xr.Dataset, kernel: str, limit: str) -> xr.DataArray:
    """The relative Frobenius error of the tangent kernel averaged over the registered number of networks."""
    if 1024 not in result.ntk_width:
        return not_applicable("width 1024 was not run")
    if result.sizes["net"] < REGISTERED:
        return not_applicable(f"{REGISTERED} networks were not drawn")
    mean = result[kernel].sel(ntk_width=1024, drop=True).isel(net=slice(REGISTERED)).mean("net")
    return bench.relative_error(mean, result[limit])


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Gradients over what independence predicts, behind one layer and in deep nets; the recurrent kernel's error."""
    from plotly.subplots import make_subplots

    titles = ("behind one layer", "by layer, own over borrowed weights", "relative error of the recurrent NTK")
    drawing = make_subplots(1, 3, subplot_titles=titles)
    colors = {"random": "rgb(46, 124, 196)", "mean": "rgb(214, 104, 44)"}
    one = result.square.sel(activation="relu") / result.predicted.sel(activation="relu", readout="random", drop=True)
    for readout, color in colors.items():
        of = one.sel(readout=readout)
        drawing.add_scatter(
            x=result.layer_width, y=of.mean("seed"), mode="lines+markers", name=f"{readout} readout",
            line={"color": color}, error_y={"type": "data", "array": of.std("seed").values, "thickness": 1},
            row=1, col=1,
        )  # fmt: skip
        for name, dash in (("mlp", "solid"), ("rnn", "dot")):
            drawing.add_scatter(
                x=list(range(1, result.sizes[f"{name}_layer"] + 1)),
                y=result[f"{name}_ratio"].sel(readout=readout), mode="lines+markers", name=f"{name}, {readout}",
                line={"color": color, "dash": dash}, row=1, col=2,
            )  # fmt: skip
    errors = bench.relative_error(result.ntk, result.ntk_limit)
    drawing.add_scatter(
        x=result.ntk_width, y=errors.mean("net"), mode="lines+markers", name="one recurrent network",
        line={"color": "rgb(122, 92, 170)"}, row=1, col=3,
    )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width", col=1)
    drawing.update_xaxes(title_text="use of weights, from the inputs on", col=2)
    drawing.update_xaxes(type="log", title_text="width", col=3)
    drawing.update_yaxes(type="log", col=3)
    return drawing
