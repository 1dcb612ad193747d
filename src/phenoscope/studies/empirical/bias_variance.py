"""Bias falls with width, variance rises and then falls (Yang, Yu, You, Steinhardt and Ma, ICML 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, measure, train
from ...lab import Study, not_applicable
from ...measure.sweeps.bias_variance import outputs_by_split
from ...stats import spearman
from ..benches import width_sweep as bench

if TYPE_CHECKING:
    import plotly.graph_objects

NOISE = 0.2
WIDTHS = (2, 4, 8, 16, 24, 32, 64, 128, 256, 512)
DRAWS = 200  # of networks and test examples, for the intervals

study = Study(
    "bias-variance",
    smoke=dict(widths=(4, 16, 128), sets=4, steps=200),
    gpu=dict(widths=(*WIDTHS, 1024, 2048), steps=6000, repeats=10),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    widths: tuple[int, ...] = WIDTHS,
    sets: int = 8,
    repeats: int = 1,
    steps: int = 1000,
) -> xr.Dataset:
    """Trains networks of many widths on disjoint training sets, with right and with wrong labels.

    First weights are N(0, 1 / (3 fan-in)) in both layers: from larger output weights, what a random network says off
    the data stays in the trained one, and the variance never comes down with width.

    Args:
        model: the network's factory; it takes `width`.
        dataset: factory of the data.
        widths: of the networks.
        sets: disjoint training sets that the training data are cut into, the same for every width.
        repeats: how often they are cut.
        steps: full-batch updates of each training.
    """
    common = dict(model=model, dataset=dataset, sets=sets, repeats=repeats, steps=steps)
    cells = [dict(width=width, noise=noise, **common) for width in sorted(widths, reverse=True) for noise in (0, NOISE)]
    found = lab.map(one_width, cells)
    arms = [xr.concat(found[arm::2], "width").assign_coords(width=sorted(widths, reverse=True)) for arm in (0, 1)]
    return xr.concat(arms, "labels").assign_coords(labels=["clean", "noisy"]).sortby("width")


def one_width(lab, *, model, dataset, width, noise, sets, repeats, steps) -> xr.Dataset:
    """One network a training set, all in one fleet; its seeds do not depend on width and labels."""
    split = data.load(dataset, generator=lab.seed("split")).to(lab.device)
    (x, y), (x_test, y_test) = split.train, split.test
    labels, _ = data.label_noise(y, noise, classes=len(split.classes), generator=lab.seed("labels"))
    outputs = outputs_by_split(
        lambda shape, num_classes, generator: train.build(
            model, shape=shape, num_classes=num_classes, width=width, generator=generator
        ),
        (x, labels), x_test, splits=sets, repeats=repeats, inits=1, loss="squared", classes=len(split.classes),
        steps=steps, optimizer=bench.ADAM, schedule=train.linear_decay(steps), batch_size=None,
        generator=lab.seed("draws"), device=lab.device,
    )[:, :, 0].cpu()  # fmt: skip
    found = measure.bias_variance_from_outputs(outputs, y_test.cpu()).mean()
    return found.merge(intervals(outputs, y_test.cpu(), generator=lab.seed("bootstrap")))


def intervals(outputs: torch.Tensor, y: torch.Tensor, *, generator: int) -> xr.Dataset:
    """95 % intervals, by drawing again both networks, the same places of every cut, and test examples."""
    rng = torch.Generator().manual_seed(generator)
    repeats, networks, examples, classes = outputs.shape
    f = outputs.double()
    times = [  # how often each network, and each example, is drawn
        torch.zeros(DRAWS, count, dtype=f.dtype).scatter_add_(1, at, torch.ones(DRAWS, count, dtype=f.dtype))
        for count in (networks, examples)
        for at in [torch.randint(count, (DRAWS, count), generator=rng)]
    ]
    losses = (f - torch.nn.functional.one_hot(y, classes)).square().sum(-1)
    risk = torch.einsum("rkn,dk,dn->d", losses, *times) / (repeats * networks * examples)
    apart = (f[:, :, None] - f[:, None]).square().sum(-1) / 2
    apart = torch.einsum("rabn,dn->dab", apart, times[1]) / (repeats * examples)
    # the variance is the mean over pairs; a network drawn twice is no pair, hence (networks - 1) squared
    variance = torch.einsum("dab,da,db->d", apart, times[0], times[0]) / (networks - 1) ** 2
    ends = np.quantile(torch.stack([risk - variance, variance, risk]), [0.025, 0.975], axis=1)
    names = [f"{name}_{end}" for end in ("low", "high") for name in ("bias", "variance", "risk")]
    return xr.Dataset(dict(zip(names, ends.ravel(), strict=True)))


@study.claim("bias-falls-rank")
def rank_of_bias(result: xr.Dataset) -> xr.DataArray:
    if not set(WIDTHS) <= set(result.width.values.tolist()):
        return not_applicable("not all widths from 2 to 512 were run")
    bias = result.bias.sel(labels="clean", width=list(WIDTHS), drop=True)
    return spearman(bias.width, bias, dim="width")


@study.claim("bias-falls-ratio")
def ratio_of_bias(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, 4, 512):
        return not_applicable(missing)
    bias = result.bias.sel(labels="clean", drop=True)
    return bias.sel(width=512, drop=True) / bias.sel(width=4, drop=True)


@study.claim("variance-unimodal-rise")
def rise_of_variance(result: xr.Dataset) -> xr.DataArray:
    return largest_over(result, 2)


@study.claim("variance-unimodal-fall")
def fall_of_variance(result: xr.Dataset) -> xr.DataArray:
    return largest_over(result, 512)


@study.claim("variance-unimodal-place")
def place_of_largest_variance(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, *WIDTHS):
        return not_applicable(missing)
    return xr.DataArray(float(widest(result)))


@study.claim("noise-raises-variance-not-bias-variance")
def variance_by_noise(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, *WIDTHS):
        return not_applicable(missing)
    return by_noise(result.variance.sel(width=widest(result), drop=True))


@study.claim("noise-raises-variance-not-bias-excess")
def excess_of_variance(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result, *WIDTHS):
        return not_applicable(missing)
    variance = result.variance.sel(width=widest(result), drop=True)
    return by_noise(variance) - by_noise(result.bias.sel(width=512, drop=True))


def lacking(result: xr.Dataset, *widths: int) -> str:
    """What to say if a width was not run; nothing if all were."""
    missing = sorted(set(widths) - set(result.width.values.tolist()))
    return f"width {missing[0]} was not run" if missing else ""


def noisy_variance(result: xr.Dataset) -> xr.DataArray:
    """By width, with wrong labels, over the ten widths that the claims are about."""
    return result.variance.sel(labels="noisy", width=list(WIDTHS), drop=True)


def widest(result: xr.Dataset) -> int:
    """The width at which the variance is largest, with wrong labels."""
    curve = noisy_variance(result)
    return int(curve.width[int(curve.values.argmax())])


def largest_over(result: xr.Dataset, width: int) -> xr.DataArray:
    if missing := lacking(result, *WIDTHS):
        return not_applicable(missing)
    curve = noisy_variance(result)
    return curve.max() / curve.sel(width=width, drop=True)


def by_noise(values: xr.DataArray) -> xr.DataArray:
    return values.sel(labels="noisy", drop=True) / values.sel(labels="clean", drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Squared bias, variance and risk by width, without and with wrong labels; shaded: 95 % intervals."""
    from plotly.subplots import make_subplots

    titles = [f"{labels} labels" for labels in result.labels.values]
    drawing = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=titles)
    colors = {"bias": "46, 124, 196", "variance": "214, 104, 44", "risk": "120, 120, 120"}
    for column, labels in enumerate(result.labels.values, start=1):
        one = result.sel(labels=labels)
        for name, color in colors.items():
            band = np.concatenate([one[f"{name}_low"].values, one[f"{name}_high"].values[::-1]])
            drawing.add_scatter(
                x=np.concatenate([one.width.values, one.width.values[::-1]]), y=band, fill="toself", mode="none",
                fillcolor=f"rgba({color}, 0.2)", hoverinfo="skip", showlegend=False, row=1, col=column,
            )  # fmt: skip
            drawing.add_scatter(
                x=one.width, y=one[name], mode="lines+markers", line={"color": f"rgb({color})"}, legendgroup=name,
                name="squared bias" if name == "bias" else name, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="width", tickvals=result.width.values)
    drawing.update_yaxes(title_text="squared distance to the label", col=1)
    return drawing
