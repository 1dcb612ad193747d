"""Deep neural networks as Gaussian processes (Lee, Bahri, Novak et al., ICLR 2018)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch.nn import functional

from ... import data, kernels, models, stats, train
from ...core.errors import InputError
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

SIGMA_W2, SIGMA_B2 = 2.0, 0.1
LIKE_PRIOR = functools.partial(models.init_gaussian, sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
COMPARED, DEPTH = 500, 3  # training images and hidden layers at which the two kinds of network are compared
BINS = 20
IN_COLLAPSE = 100  # inputs whose kernel is followed through depth

digits = data.digits
mlp = functools.partial(models.mlp, init=LIKE_PRIOR)

study = Study(
    "nngp",
    smoke=dict(sizes=(100,), widths=(16, 64), epochs=30, random_widths=(8, 16), nets=50, layers=(1, 5), seeds=1),
    gpu=dict(sizes=(100, 200, 500, 1000, 1400), widths=(16, 64, 256, 1024, 4096), nets=20_000, seeds=10),
)


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=digits,
    sizes: tuple[int, ...] = (100, 500, 1000),
    depths: tuple[int, ...] = (1, 3),
    widths: tuple[int, ...] = (16, 64, 256, 1024),
    epochs: int = 400,
    batch: int = 250,
    random_widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512),
    nets: int = 2000,
    inputs: int = 8,
    layers: tuple[int, ...] = (1, 2, 3, 5, 10, 20, 50),
    seeds: int = 3,
) -> xr.Dataset:
    """Regression by the kernel of infinitely wide networks beside trained and beside random networks of finite width.

    Args:
        model: factory of the trained and the random networks; it takes `width` and `depth`. ReLU networks unless given,
            their weights and biases drawn with the variances of the infinite one.
        dataset: factory of the data; all that is not trained on is tested on.
        sizes: training images; networks are trained on 500, or on the largest below.
        depths: hidden layers of the infinite networks.
        widths: units of a layer of the trained networks, which have 3.
        epochs: of their training by Adam on squared error.
        batch: images in an update.
        random_widths: units of a layer of the random networks, which have 2.
        nets: random networks of each width.
        inputs: images whose outputs in random networks are looked at.
        layers: depths at which correlations of the kernel are looked at.
        seeds: repetitions, each with another choice of training images.
    """
    compared = max([size for size in sizes if size <= COMPARED] or [min(sizes)])
    common = dict(model=model, dataset=dataset)
    asked = [  # the longest first
        *(("trained", width, seed) for width in sorted(widths)[::-1] for seed in range(seeds)),
        *(("random", width, 0) for width in sorted(random_widths)[::-1]),
        *(("regression", size, seed) for size in sorted(sizes)[::-1] for seed in range(seeds)),
        ("correlations", 0, 0),
    ]
    settings = {
        "trained": dict(size=compared, epochs=epochs, batch=batch),
        "random": dict(nets=nets, inputs=inputs),
        "regression": dict(depths=depths, keep=compared),
        "correlations": dict(layers=layers),
    }
    cells = [dict(what=what, at=at, seed=seed, settings=settings[what], **common) for what, at, seed in asked]
    found = dict(zip(asked, lab.map(one_part, cells), strict=True))

    def gathered(what: str, axis: str, values: tuple[int, ...]) -> xr.Dataset:
        names = {"regression": ["accuracy"], "trained": ["net_accuracy", "net_loss"]}[what]
        rows = [xr.concat([found[what, at, seed][names] for seed in range(seeds)], "seed") for at in values]
        return xr.concat(rows, axis).assign_coords({axis: list(values), "seed": range(seeds)})

    sizes, widths, random_widths = (tuple(sorted(each)) for each in (sizes, widths, random_widths))
    points = [found["regression", compared, seed][["variance", "squared_error"]] for seed in range(seeds)]
    result = xr.merge(
        [
            gathered("regression", "size", sizes),
            gathered("trained", "width", widths),
            xr.concat(points, "seed").assign_coords(seed=range(seeds)),
            xr.concat([found["random", width, 0] for width in random_widths], "random_width"),
            found["correlations", 0, 0],
        ]
    )
    return result.assign_attrs(compared=compared)


def one_part(lab, *, what, at, model, dataset, seed, settings) -> xr.Dataset:
    """One width, size or kernel, of one repetition."""
    split = data.load(dataset, generator=lab.seed("split", seed))
    classes = len(split.classes)
    parts = [part for part in (split.train, split.validation, split.test) if part is not None]
    x, y = (torch.cat(each) for each in zip(*parts, strict=True))
    targets = functional.one_hot(y, classes).to(x.dtype) - 1 / classes
    if what == "correlations":
        return correlations(x[:IN_COLLAPSE], **settings)
    if what == "random":
        return random(lab, model, x, classes, width=at, **settings)
    size = at if what == "regression" else settings["size"]
    if size >= len(x):
        raise InputError(f"{size} training images leave none of {len(x)} to test on; ask for smaller sizes=")
    pair, test = (x[:size], targets[:size]), (x[size:], targets[size:])
    if what == "regression":
        return regression(pair, test, depths=settings["depths"], points=size == settings["keep"])
    return trained(lab, model, pair, test, width=at, epochs=settings["epochs"], batch=settings["batch"], seed=seed)


def regression(pair, test, *, depths, points) -> xr.Dataset:
    """The posterior of infinitely wide networks: how often it is right, and where it is how uncertain and how wrong."""
    (x, y), (x_test, y_test) = ([each.flatten(1).cpu().double().numpy() for each in part] for part in (pair, test))
    rates, found = [], xr.Dataset()
    for depth in depths:
        process = kernels.GaussianProcess(functools.partial(limit, depth=depth)).fit(x, y)
        mean, std = process.predict(x_test, return_std=True)
        rates.append(float((mean.argmax(1) == y_test.argmax(1)).mean()))
        if points and depth == DEPTH:
            found["variance"] = ("point", std**2)
            found["squared_error"] = ("point", ((mean - y_test) ** 2).mean(1))
    if points and DEPTH not in depths:
        raise InputError(f"depths must include {DEPTH}, at which uncertainty and finite networks are compared")
    found["accuracy"] = ("depth", rates)
    return found.assign_coords(depth=list(depths))


def trained(lab, model, pair, test, *, width, epochs, batch, seed) -> xr.Dataset:
    """A network of finite width, trained on the same targets."""
    (x, y), (x_test, y_test) = ([each.to(lab.device) for each in part] for part in (pair, test))
    draw = lab.seed("trained", width, seed)
    network = train.build(
        model, shape=x.shape[1:], num_classes=y.shape[1], width=width, depth=DEPTH, generator=draw
    ).to(lab.device)
    found = train.fit(
        network, (x, y), epochs=epochs, batch_size=batch, loss_fn=functional.mse_loss, generator=draw,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-3, fused=True),
    )  # fmt: skip
    return xr.Dataset(
        {
            "net_accuracy": train.accuracy(network, (x_test, y_test.argmax(1))),
            "net_loss": float(found.history.loss[-1]),
        }
    )


def random(lab, model, x, classes, *, width, nets, inputs) -> xr.Dataset:
    """How far outputs of random networks of two hidden layers are from the Gaussian process."""
    found = kernels.finite_width_gap(
        functools.partial(model, depth=2), x[:inputs].to(lab.device), limit=functools.partial(limit, depth=2),
        widths=(width,), repeats=nets, get=("nngp",), num_classes=classes, generator=lab.seed("random", width),
    )  # fmt: skip
    return found[["nngp_gap", "excess_kurtosis"]].squeeze("width").rename(width="random_width")


def correlations(x, *, layers) -> xr.Dataset:
    """How the correlations of different images under the kernel spread, layer by layer."""
    spreads, means = [], []
    for layer in layers:
        k = limit(x, depth=layer).nngp
        scale = k.diagonal().sqrt()
        between = (k / scale[:, None] / scale)[tuple(torch.triu_indices(len(k), len(k), 1))]
        spreads.append(float(between.std()))
        means.append(float(between.mean()))
    found = {"correlation_std": ("layer", spreads), "correlation_mean": ("layer", means)}
    return xr.Dataset(found, {"layer": list(layers)})


def limit(x1, x2=None, *, depth) -> kernels.LimitKernels:
    """The kernels of infinitely wide ReLU networks."""
    return kernels.mlp_kernels(x1, x2, depth=depth, act="relu", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)


@study.claim("gp-matches-nets")
def against_networks(result: xr.Dataset) -> xr.DataArray:
    return at_500(result, of_process(result) - result.net_accuracy.mean("seed").max("width"))


@study.claim("gp-matches-nets-accuracy")
def accuracy_of_process(result: xr.Dataset) -> xr.DataArray:
    return at_500(result, of_process(result))


@study.claim("variance-tracks-error-points")
def variance_and_error(result: xr.Dataset) -> xr.DataArray:
    return at_500(result, stats.spearman(result.variance, result.squared_error, dim="point").mean("seed"))


@study.claim("variance-tracks-error-bins")
def variance_and_error_in_bins(result: xr.Dataset) -> xr.DataArray:
    variance, error = in_bins(result)
    return at_500(result, stats.spearman(variance, error, dim="bin").mean("seed"))


@study.claim("converges-as-width")
def kurtosis_slope(result: xr.Dataset) -> xr.DataArray:
    kurtosis = result.excess_kurtosis.sel(random_width=slice(8, 64))
    if not {8, 64} <= set(kurtosis.random_width.values.tolist()):
        return not_applicable("random networks of widths 8 to 64 were not drawn")
    if (kurtosis <= 0).any():
        return not_applicable("an excess kurtosis is not positive: it has no logarithm")
    return xr.DataArray(stats.loglog_slope(kurtosis.random_width, kurtosis).estimate)


@study.claim("kernel-depth-collapse")
def collapse(result: xr.Dataset) -> xr.DataArray:
    if not {1, 50} <= set(result.layer.values.tolist()):
        return not_applicable("depths 1 and 50 were not looked at")
    return result.correlation_std.sel(layer=50, drop=True) / result.correlation_std.sel(layer=1, drop=True)


def of_process(result: xr.Dataset) -> xr.DataArray:
    """The accuracy of the infinitely wide network where finite ones were trained, mean over seeds."""
    return result.accuracy.sel(size=result.attrs["compared"], depth=DEPTH, drop=True).mean("seed")


def at_500(result: xr.Dataset, value: xr.DataArray) -> xr.DataArray:
    """The value, if it is that of the claims' number of training images."""
    return value if result.attrs["compared"] == COMPARED else not_applicable("500 training images were not run")


def in_bins(result: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """(seed, bin): means of variance and squared error over test images grouped by variance, equally many in each."""
    rows = []
    for variance, error in zip(result.variance.values, result.squared_error.values, strict=True):
        groups = np.array_split(np.argsort(variance, kind="stable"), BINS)
        rows.append([[values[group].mean() for group in groups] for values in (variance, error)])
    both = xr.DataArray(rows, dims=("seed", "what", "bin"), coords={"seed": result.seed})
    return both.isel(what=0), both.isel(what=1)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy of the process and of trained networks; uncertainty and error; random networks by width."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 3, horizontal_spacing=0.09,
        subplot_titles=(
            f"test accuracy, {result.attrs['compared']} training images", "squared error by predicted variance",
            "random networks",
        ),
    )  # fmt: skip
    blue, orange = "rgb(46, 124, 196)", "rgb(214, 104, 44)"
    nets = result.net_accuracy
    drawing.add_scatter(
        x=nets.width, y=nets.mean("seed"), mode="lines+markers", name="trained networks", line={"color": orange},
        error_y={"type": "data", "array": nets.std("seed").values, "thickness": 1}, row=1, col=1,
    )  # fmt: skip
    drawing.add_scatter(
        x=nets.width, y=[float(of_process(result))] * nets.sizes["width"], mode="lines", name="infinitely wide",
        line={"color": blue, "dash": "dash"}, row=1, col=1,
    )  # fmt: skip
    variance, error = in_bins(result)
    drawing.add_scatter(
        x=variance.mean("seed"), y=error.mean("seed"), mode="markers", name=f"{BINS} groups of test images",
        marker={"color": blue}, row=1, col=2,
    )  # fmt: skip
    for name, values, color in (
        ("excess kurtosis of outputs", result.excess_kurtosis, orange),
        ("distance of their covariance", result.nngp_gap, blue),
    ):
        drawing.add_scatter(
            x=values.random_width, y=values, mode="lines+markers", name=name, line={"color": color}, row=1, col=3
        )
    for column in (1, 3):
        drawing.update_xaxes(type="log", title_text="width", row=1, col=column)
    drawing.update_xaxes(title_text="predicted variance", row=1, col=2)
    drawing.update_yaxes(type="log", row=1, col=3)
    return drawing
