"""Infinitely wide networks: their kernels, and what ensembles of them predict (Novak, Xiao, Hron et al., ICLR 2020)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, kernels, models, stats, train
from ...lab import Study, not_applicable
from ..benches import wide_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

GROUP = 5  # members that train side by side: more of them fall out of the processor's cache

study = Study(
    "neural-tangents",
    smoke=dict(widths=(64, 256), nets=8, members=20, steps=60, width=64),
    gpu=dict(widths=(64, 128, 256, 512, 1024, 2048, 4096), nets=64, members=500, width=2048, steps=2000),
)


class Erf(nn.Module):
    """The error function."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


def gaussian(sigma_w: float, sigma_b: float):
    return functools.partial(models.init_gaussian, sigma_w2=sigma_w**2, sigma_b2=sigma_b**2)


def small_cnn(shape, num_classes, *, width, generator=None) -> nn.Sequential:
    """A convolution, ReLU, global average pooling, and a linear layer, in the NTK parametrization."""
    law: Any = dict(sigma_w2=2.0, sigma_b2=0.1**2)
    layers = (models.NTKConv2d(shape[0], width, **law), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, models.NTKLinear(width, num_classes, **law))


ntk_mlp = functools.partial(models.mlp, depth=2, parametrization="ntk")
erf_mlp = functools.partial(ntk_mlp, activation=Erf, init=gaussian(1.5, 0.05))
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "erf": erf_mlp,
    "relu": functools.partial(ntk_mlp, init=gaussian(math.sqrt(2), 0.1)),
    "cnn": small_cnn,
}


@study.experiment
def experiment(
    lab,
    *,
    dataset=data.digits,
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    nets: int = 32,
    inputs: int = 20,
    members: int = 100,
    width: int = 512,
    points: int = 6,
    steps: int = 500,
    lr: float = 0.02,
) -> xr.Dataset:
    """Random networks' tangent kernels beside the limit, and an ensemble trained on a sine beside its prediction.

    Args:
        dataset: factory of the images on which kernels are compared, of 8 x 8 pixels.
        widths: units, or channels, of the random networks.
        nets: random networks of an architecture and a width.
        inputs: images.
        members: networks of the ensemble.
        width: units of its layers.
        points: places at which it is trained.
        steps: full-batch updates.
        lr: learning rate for the sum of squares.
    """
    asked = list(itertools.product(ARCHITECTURES, sorted(widths)))
    ensemble = dict(what="ensemble", width=width, points=points, steps=steps, lr=lr)
    starts = range(0, members, GROUP)
    cells = [ensemble | dict(members=range(start, min(start + GROUP, members))) for start in starts]
    random = dict(what="random", dataset=dataset, nets=nets, inputs=inputs)
    cells += [random | dict(architecture=name, width=units) for name, units in asked[::-1]]
    found = list(lab.map(one_cell, cells))
    errors = dict(zip(asked[::-1], found[len(starts) :], strict=True))
    by_width = [xr.concat([errors[name, units] for units in sorted(widths)], "width") for name in ARCHITECTURES]
    kernel = xr.concat(by_width, "architecture").assign_coords(
        architecture=list(ARCHITECTURES), width=sorted(widths), net=range(nets)
    )
    trained = xr.concat(found[: len(starts)], "member").assign_coords(member=range(members))
    return xr.merge([kernel, trained, predicted(lab, points=points, steps=steps, lr=lr)])


def one_cell(lab, *, what, **settings) -> xr.Dataset:
    """One architecture and width, or one part of the ensemble."""
    return random_networks(lab, **settings) if what == "random" else ensemble_part(lab, **settings)


def random_networks(lab, *, dataset, architecture, width, nets, inputs) -> xr.Dataset:
    """How far the tangent kernel of each random network is from the limit, relative to the limit's norm."""
    x = data.load(dataset, generator=lab.seed("split")).train[0][:inputs].to(lab.device)
    if architecture == "cnn":
        x = x[:, :1, 1:7, 1:7]
    limit = limit_kernel(architecture, x)(x.cpu()).ntk

    def error(net: int) -> float:
        network = train.build(
            ARCHITECTURES[architecture], shape=x.shape[1:], num_classes=1, width=width,
            generator=lab.seed("network", architecture, width, net),
        )  # fmt: skip
        finite = kernels.empirical_ntk(network.to(x), x, outputs=0)
        return float((finite.cpu() - limit).norm() / limit.norm())

    return xr.Dataset({"kernel_error": ("net", [error(net) for net in range(nets)])})


def limit_kernel(architecture: str, x: Tensor):
    if architecture == "cnn":
        return kernels.infinite(small_cnn((1,), 1, width=1))
    return kernels.infinite(ARCHITECTURES[architecture](x.shape[1:], 1, width=8, generator=0))


def sine(lab, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places drawn uniformly from [-pi, pi], sines there, and 50 places to predict."""
    generator = torch.Generator().manual_seed(lab.seed("sine"))
    x = (2 * torch.rand(points, 1, generator=generator) - 1) * math.pi
    return x, torch.sin(x), torch.linspace(-math.pi, math.pi, 50)[:, None]


def ensemble_part(lab, *, width, points, steps, lr, members) -> xr.Dataset:
    """Train some members of the ensemble and let them predict."""
    x, y, test = (part.to(lab.device) for part in sine(lab, points))
    seeds = [lab.seed("member", number) for number in members]
    make = functools.partial(erf_mlp, width=width)
    fleet = train.fleet(
        make, (x, y), members=len(seeds), shape=(1,), num_classes=1, steps=steps, batch_size=None,
        optimizer=functools.partial(torch.optim.SGD, lr=lr), loss_fn=bench.half_squares, generator=seeds,
        device=lab.device,
    )  # fmt: skip
    return xr.Dataset({"outputs": (("member", "point"), fleet.outputs(test)[..., 0].cpu().numpy())})


def predicted(lab, *, points, steps, lr) -> xr.Dataset:
    """Mean and spread of the infinite ensemble at the same time, and the Bayesian posterior's."""
    x, y, test = (part.double() for part in sine(lab, points))
    kernel = kernels.infinite(erf_mlp((1,), 1, width=8, generator=0))
    trained = kernels.predict(kernel, x, y, test, steps, lr=lr)
    bayes = kernels.predict(kernel, x, y, test, get="nngp")
    values = {
        "mean": trained.mean[:, 0],
        "std": trained.std,
        "bayes_mean": bayes.mean[:, 0],
        "bayes_std": bayes.std,
    }
    found = xr.Dataset({f"predicted_{name}": ("point", value.numpy()) for name, value in values.items()})
    found["train_y"] = ("train_x", y[:, 0].numpy())
    return found.assign_coords(point=test[:, 0].numpy(), train_x=x[:, 0].numpy())


def rate(result: xr.Dataset, architecture: str) -> xr.DataArray:
    """The exponent of a power law in the width, 64 to 1024."""
    errors = at_registered_widths(result).kernel_error.sel(architecture=architecture).mean("net")
    if errors.sizes["width"] < 3:
        return not_applicable("a slope needs three widths between 64 and 1024")
    return xr.DataArray(stats.loglog_slope(errors.width.values, errors.values).estimate)


def at_registered_widths(result: xr.Dataset) -> xr.Dataset:
    return result.sel(width=[width for width in result.width.values if 64 <= width <= 1024])


def error_at_1024(result: xr.Dataset, architecture: str) -> xr.DataArray:
    if 1024 not in result.width:
        return not_applicable("width 1024 was not run")
    return result.kernel_error.sel(architecture=architecture, width=1024, drop=True).mean("net")


@study.claim("mc-rate-slope-erf-mlp")
def slope_erf(result: xr.Dataset) -> xr.DataArray:
    return rate(result, "erf")


@study.claim("mc-rate-slope-relu-mlp")
def slope_relu(result: xr.Dataset) -> xr.DataArray:
    return rate(result, "relu")


@study.claim("mc-rate-slope-cnn")
def slope_cnn(result: xr.Dataset) -> xr.DataArray:
    return rate(result, "cnn")


@study.claim("mc-rate-error-erf-mlp")
def error_erf(result: xr.Dataset) -> xr.DataArray:
    return error_at_1024(result, "erf")


@study.claim("mc-rate-error-relu-mlp")
def error_relu(result: xr.Dataset) -> xr.DataArray:
    return error_at_1024(result, "relu")


@study.claim("ensemble-mean")
def mean_error(result: xr.Dataset) -> xr.DataArray:
    error = ((result.outputs.mean("member") - result.predicted_mean) ** 2).mean("point") ** 0.5
    return error / result.predicted_mean.std("point")


@study.claim("ensemble-std")
def spread_ratio(result: xr.Dataset) -> xr.DataArray:
    return median_ratio(result, "predicted_std")


@study.claim("ensemble-std-not-bayesian")
def bayes_is_further(result: xr.Dataset) -> xr.DataArray:
    ratios = [median_ratio(result, name) for name in ("predicted_bayes_std", "predicted_std")]
    if "not_applicable" in ratios[0].attrs:
        return ratios[0]
    bayes, ours = (abs(math.log(float(ratio))) for ratio in ratios)
    return xr.DataArray(bayes - ours)


def median_ratio(result: xr.Dataset, name: str) -> xr.DataArray:
    """The ensemble's spread over a predicted one, the median over the places where networks are said to differ."""
    apart = result.predicted_std > 0.1
    if not apart.any():
        return not_applicable("nowhere is a standard deviation above 0.1 predicted")
    ratio = result.outputs.std("member", ddof=1) / result[name]
    return ratio.where(apart, drop=True).median("point")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Tangent kernels of random networks beside the limit, and the trained ensemble beside its prediction."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 2, subplot_titles=("distance of a random network's kernel from the limit", "trained on a sine at six places")
    )
    errors = result.kernel_error.mean("net")
    named = {"erf": "erf network", "relu": "ReLU network", "cnn": "convolutional network"}
    for (name, words), color in zip(named.items(), ("46, 124, 196", "214, 104, 44", "122, 92, 170"), strict=True):
        drawing.add_scatter(
            x=errors.width, y=errors.sel(architecture=name), name=words, mode="lines+markers",
            line={"color": f"rgb({color})"}, row=1, col=1,
        )  # fmt: skip
    half = float(errors.isel(width=0).mean()) * (errors.width / errors.width[0]) ** -0.5
    drawing.add_scatter(
        x=errors.width, y=half, name="1 / √width", mode="lines", line={"dash": "dot", "color": "gray"}, row=1, col=1
    )
    x, mean, std = result.point.values, result.predicted_mean.values, result.predicted_std.values
    band: dict[str, Any] = {"legendgroup": "band", "hoverinfo": "skip", "row": 1, "col": 2}
    band |= {"mode": "lines", "line": {"width": 0}}
    drawing.add_scatter(x=x, y=mean - 2 * std, showlegend=False, **band)
    drawing.add_scatter(
        x=x, y=mean + 2 * std, name="infinite ensemble, ± 2 std", fill="tonexty", fillcolor="rgba(46, 124, 196, 0.25)",
        **band,
    )  # fmt: skip
    drawing.add_scatter(x=x, y=mean, name="infinite ensemble, mean", line={"color": "rgb(46, 124, 196)"}, row=1, col=2)
    finite = result.outputs
    ours, spread = finite.mean("member").values, finite.std("member", ddof=1).values
    name = f"{finite.sizes['member']} trained networks, mean and ± 2 std"
    for sign, width in ((0, 2), (-1, 1), (1, 1)):
        drawing.add_scatter(
            x=x, y=ours + 2 * sign * spread, name=name, legendgroup="finite", showlegend=sign == 0, mode="lines",
            line={"dash": "dash", "color": "rgb(214, 104, 44)", "width": width}, row=1, col=2,
        )  # fmt: skip
    drawing.add_scatter(
        x=result.train_x, y=result.train_y, name="training data", mode="markers",
        marker={"color": "black", "size": 8}, row=1, col=2,
    )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width", tickvals=result.width.values, row=1, col=1)
    drawing.update_yaxes(type="log", row=1, col=1)
    drawing.update_xaxes(title_text="x", row=1, col=2)
    return drawing
