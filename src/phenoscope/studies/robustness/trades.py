"""TRADES: a weight trades accuracy for robustness (Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, ICML 2019)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import xarray as xr

from ... import robust
from ...lab import Study, not_applicable
from ..benches import adversarial_digits as bench

if TYPE_CHECKING:
    import plotly.graph_objects

study = Study("trades", smoke=dict(seeds=1, betas=(1.0,), epochs=3), gpu=dict(seeds=20))


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.digits,
    eps: float = 0.1,
    betas: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0),
    epochs: int = 20,
    attack_steps: int = 7,
    seeds: int = 6,
) -> xr.Dataset:
    """Trains networks plainly, on attacked images, and by TRADES with several weights, and attacks them all.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        eps: how far any pixel may be moved, in training and in the evaluation.
        betas: weights of the divergence in TRADES.
        epochs: passes through the training data.
        attack_steps: steps of the attack in every update.
        seeds: repetitions, each with a split, a network and an order of its own.
    """
    common = dict(model=model, dataset=dataset, eps=eps, epochs=epochs, attack_steps=attack_steps, seeds=seeds)
    arms = {"standard": None, "attacked": None} | {f"trades {beta:g}": beta for beta in betas}
    found = lab.map(one_arm, [dict(arm=arm, beta=beta, **common) for arm, beta in arms.items()])
    return xr.concat(found, "arm").assign_coords(arm=list(arms))


def one_arm(lab, *, model, dataset, arm, beta, eps, epochs, attack_steps, seeds) -> xr.Dataset:
    """All seeds of one way of training, as a fleet."""
    parts = bench.splits(lab, dataset, seeds)
    ball = dict(eps=eps, steps=attack_steps, clip=parts[0].range)
    objective = None
    if beta is not None:
        objective = partial(robust.trades_loss, beta=beta, **ball)
    elif arm == "attacked":
        objective = partial(robust.adversarial_loss, **ball)
    fleet = bench.trained(lab, model, parts, objective=objective, epochs=epochs)
    return bench.evaluated(lab, fleet, parts, eps=eps)


@study.claim("beta-buys-robustness")
def robustness_gained(result: xr.Dataset) -> xr.DataArray:
    return difference(result.robust_accuracy, "trades 3", "trades 0.3")


@study.claim("beta-costs-accuracy")
def accuracy_paid(result: xr.Dataset) -> xr.DataArray:
    return difference(1 - result.natural, "trades 0.3", "trades 10")


@study.claim("boundary-error-shrinks")
def boundary_error_removed(result: xr.Dataset) -> xr.DataArray:
    return difference(result.boundary, "standard", "trades 3")


def difference(values: xr.DataArray, one: str, other: str) -> xr.DataArray:
    """One arm minus another, seed by seed."""
    for arm in (one, other):
        if arm not in values.arm:
            return not_applicable(f"{arm} was not run")
    return values.sel(arm=one, drop=True) - values.sel(arm=other, drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy under attack by accuracy on clean images: every seed, and the mean of each way of training."""
    import plotly.graph_objects as go

    clean, attacked = 1 - result.natural, result.robust_accuracy
    trades = [arm for arm in result.arm.values if arm.startswith("trades")]
    drawing = go.Figure()
    groups = {"TRADES, by weight": trades, "plain": ["standard"], "on attacked images": ["attacked"]}
    colors = ("rgb(46, 124, 196)", "rgb(122, 92, 170)", "rgb(214, 104, 44)")
    for (name, arms), color in zip(groups.items(), colors, strict=True):
        drawing.add_scatter(
            x=clean.sel(arm=arms).values.ravel(), y=attacked.sel(arm=arms).values.ravel(), mode="markers",
            marker={"color": color, "size": 5}, opacity=0.4, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        drawing.add_scatter(
            x=clean.sel(arm=arms).mean("seed").values, y=attacked.sel(arm=arms).mean("seed").values, name=name,
            mode="lines+markers+text" if len(arms) > 1 else "markers", textposition="top center",
            text=[arm.removeprefix("trades ") for arm in arms], line={"color": color},
            marker={"size": 9, "color": color},
        )  # fmt: skip
    drawing.update_xaxes(title_text="accuracy on clean test images")
    drawing.update_yaxes(title_text="accuracy under attack")
    return drawing
