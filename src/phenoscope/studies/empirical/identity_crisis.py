"""Identity crisis: what learning one image teaches about all others (Zhang, Bengio, Hardt et al., ICLR 2020)."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from ... import data, measure, theory, train
from ...lab import Study, not_applicable
from ...measure.sweeps.identity import correlation

if TYPE_CHECKING:
    import plotly.graph_objects

RATES = {1: 1e-2}  # of Adam, by depth
RATE = 1e-3  # at all others
LINEAR_STEPS = 300
SHALLOW, DEEP = 1, 14

digits = functools.partial(data.digits, size=16, scale="unit")

study = Study(
    "identity-crisis",
    smoke=dict(
        dataset=functools.partial(data.digits, scale="unit"), depths=(1, 6), steps=80, shallow_steps=500, seeds=1,
    ),
    gpu=dict(
        dataset=functools.partial(data.digits, size=28, scale="unit"), depths=(1, 2, 3, 5, 7, 10, 14, 17, 20, 24),
        width=128, steps=10000, seeds=10,
    ),
)  # fmt: skip


def conv_chain(shape, *, depth: int, width: int = 24, kernel_size: int = 5, generator=None) -> nn.Sequential:
    """Convolutions that keep the image's shape, ReLU between them and no biases; He's initialization."""
    channels = [shape[0], *[width] * (depth - 1), shape[0]]
    generator = torch.Generator().manual_seed(generator or 0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@study.experiment
def experiment(
    lab,
    *,
    model=conv_chain,
    dataset=digits,
    depths: tuple[int, ...] = (1, 3, 6, 10, 14),
    width: int = 24,
    probes: int = 200,
    steps: int = 800,
    shallow_steps: int = 10_000,
    end: float = 1e-5,
    seeds: int = 3,
) -> xr.Dataset:
    """Trains networks of several depths to reproduce one image, and shows them other images and noise.

    Args:
        model: the network's factory, of outputs in the input's shape; it takes `depth` and `width`.
        dataset: factory of the data.
        depths: numbers of layers.
        width: channels of the layers in between.
        probes: unseen images to show; half as many noise images.
        steps: updates of each training at most.
        shallow_steps: the same with one layer: neighboring pixels are alike, and its only filter is found slowly.
        end: mean squared error at which a training ends.
        seeds: repetitions, each with an image and networks of its own.
    """
    common = dict(model=model, dataset=dataset, width=width, probes=probes, end=end)
    cells = [
        dict(depth=depth, seed=seed, steps=shallow_steps if depth == SHALLOW else steps, **common)
        for depth in sorted(depths, reverse=True)
        for seed in range(seeds)
    ]
    found = lab.map(one_network, cells)
    rows = [found[start : start + seeds] for start in range(0, len(found), seeds)]
    table = xr.concat([xr.concat(row, "seed") for row in rows], "depth")
    table = table.assign_coords(depth=sorted(depths, reverse=True), seed=range(seeds)).sortby("depth")
    linear = lab.map(one_linear, [dict(dataset=dataset, seed=seed) for seed in range(seeds)])
    return table.assign(linear_error=xr.concat(linear, "seed").linear_error)


def one_network(lab, *, model, dataset, depth, width, probes, steps, end, seed) -> xr.Dataset:
    """A network of a depth after it learned an image: how near it is to the identity and to a constant."""
    split, x = image(lab, dataset, seed)
    low, high = split.range
    unseen = split.test[0][:probes]
    noise = torch.rand((max(2, probes // 2), *x.shape[1:]), generator=torch.Generator().manual_seed(lab.seed("noise")))
    noise = (low + (high - low) * noise).to(x)
    fit = functools.partial(
        train.fit, steps=steps, optimizer=functools.partial(torch.optim.Adam, lr=RATES.get(depth, RATE)),
        loss_fn=nn.functional.mse_loss, batch_size=None, stop_at=end,
    )  # fmt: skip
    report = measure.identity_probe(
        functools.partial(model, depth=depth, width=width), x, torch.cat([unseen, noise]), fit,
        generator=lab.seed("network", seed), device=lab.device,
    )  # fmt: skip
    kinds = torch.tensor([0] * len(unseen) + [1] * len(noise))

    def means(values: torch.Tensor) -> tuple[str, np.ndarray]:
        return "probe", np.array([float(values.cpu()[kinds == kind].nanmean()) for kind in range(2)])

    answers = train.outputs(report.model, noise)
    return xr.Dataset(
        {
            "fitted": report.fitted,
            "train_error": report.train_error,
            "corr_identity": means(report.corr_identity),
            "corr_constant": means(report.corr_constant),
            "mse_identity": means(report.mse_identity),
            "mse_constant": means(report.mse_constant),
            "noise_agreement": float(correlation(answers, answers.roll(1, 0)).mean()),
        },
        {"probe": ["images", "noise"]},
    )


def one_linear(lab, *, dataset, seed) -> xr.Dataset:
    """One linear layer after it learned an image: how far it is from the closed form, relative to its size."""
    _, x = image(lab, dataset, seed)
    flat = x.flatten(1)
    layer: Any = train.build(
        functools.partial(nn.Linear, flat.shape[1], flat.shape[1], bias=False), generator=lab.seed("linear", seed)
    ).to(lab.device)
    expected = theory.single_example_solution(layer.weight, flat)
    train.fit(
        layer, (flat, flat), steps=LINEAR_STEPS, batch_size=None, loss_fn=half_the_sum_of_squares,
        optimizer=functools.partial(torch.optim.SGD, lr=0.9 / float(flat.square().sum())),
    )  # fmt: skip
    return xr.Dataset({"linear_error": float((layer.weight.detach() - expected).norm() / expected.norm())})


def image(lab, dataset, seed):
    """The data, and the one image of a seed that is trained on."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    return split, split.train[0][:1]


def half_the_sum_of_squares(outputs, y):
    return (outputs - y).square().sum() / 2


@study.claim("shallow-is-identity-digits")
def shallow_on_images(result: xr.Dataset) -> xr.DataArray:
    return shallow(result, "images")


@study.claim(
    "shallow-is-identity-noise",
    note="The digits are enlarged from 8x8 to 16x16, and such a smooth image hardly says what a filter does to the "
    "changes from pixel to pixel that make up noise: at a mean squared error of 1e-5 the filters still differ from a "
    "copy there. Trained further (`--set end=1e-6 --set shallow_steps=20000`) the same three networks reach 0.96, 0.97 "
    "and 0.91; on digits that were not enlarged 0.999, with as many steps as here.",
)
def shallow_on_noise(result: xr.Dataset) -> xr.DataArray:
    return shallow(result, "noise")


@study.claim("depth-moves-from-identity-to-constant-share")
def share_of_moves(result: xr.Dataset) -> xr.DataArray:
    moves = contrast_lost(result)
    return moves if "not_applicable" in moves.attrs else (moves > 0.5).mean("seed")


@study.claim("depth-moves-from-identity-to-constant-mean")
def mean_move(result: xr.Dataset) -> xr.DataArray:
    return contrast_lost(result)


@study.claim("fc-closed-form")
def largest_distance(result: xr.Dataset) -> xr.DataArray:
    return result.linear_error.max("seed")


def shallow(result: xr.Dataset, probe: str) -> xr.DataArray:
    """Correlation of output and input at depth 1, the smallest over the seeds that fit."""
    if SHALLOW not in result.depth:
        return not_applicable("depth 1 was not run")
    one = result.sel(depth=SHALLOW, probe=probe, drop=True)
    if not bool(one.fitted.any()):
        return not_applicable("no network of depth 1 learned its image")
    return one.corr_identity.where(one.fitted).min("seed")


def contrast_lost(result: xr.Dataset) -> xr.DataArray:
    """On noise, nearness to the identity minus to a constant: at depth 1 minus at depth 14, seeds that fit both."""
    if SHALLOW not in result.depth or DEEP not in result.depth:
        return not_applicable("depths 1 and 14 were not both run")
    ends = result.sel(depth=[SHALLOW, DEEP], probe="noise", drop=True)
    both = ends.isel(seed=np.flatnonzero(ends.fitted.all("depth")))
    if both.sizes["seed"] < 2:
        return not_applicable("fewer than two seeds learned their image at both depths")
    contrast = both.corr_identity - both.corr_constant
    moves = contrast.sel(depth=SHALLOW, drop=True) - contrast.sel(depth=DEEP, drop=True)
    return moves.assign_coords(seed=range(moves.sizes["seed"]))


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Correlation of the output with the input and with the training image, by depth; open where training failed."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(rows=1, cols=2, subplot_titles=("unseen images", "noise"), shared_yaxes=True)
    lines = (("corr_identity", "with the input", "#2e7cc4"), ("corr_constant", "with the training image", "#d6682c"))
    for column, probe in enumerate(result.probe.values, start=1):
        for name, title, color in lines:
            values = result[name].sel(probe=probe)
            drawing.add_scatter(
                x=values.depth, y=values.where(result.fitted).mean("seed"), mode="lines", name=title,
                line={"color": color}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
            for seed in values.seed.values:
                good = result.fitted.sel(seed=seed).values
                drawing.add_scatter(
                    x=values.depth, y=values.sel(seed=seed), mode="markers", showlegend=False, row=1, col=column,
                    marker={"color": color, "symbol": ["circle" if each else "circle-open" for each in good]},
                )  # fmt: skip
        drawing.update_xaxes(title_text="layers", row=1, col=column)
    drawing.update_yaxes(title_text="correlation of the output", col=1)
    return drawing
