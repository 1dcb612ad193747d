"""The lottery ticket hypothesis: sparse subnetworks that train alone from their start (Frankle, Carbin, ICLR 2019)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ... import data, prune, train
from ...lab import Study, not_applicable
from ..benches import tickets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

CONTROLS = ("random weights", "random mask", "one shot")
MEASURES = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")

study = Study(
    "lottery-ticket",
    smoke=dict(dataset=functools.partial(data.digits, train=1200, validation=200), rounds=3, steps=100, seeds=2),
    gpu=dict(seeds=20, steps=6000, rate=0.2, rounds=16, control_rounds=(2, 5, 10, 13, 16)),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=bench.mnist1d,
    rounds: int = 8,
    rate: float = 0.35,
    control_rounds: tuple[int, ...] = (1, 5, 7, 8),
    steps: int = 1200,
    seeds: int = 5,
) -> xr.Dataset:
    """Finds tickets by iterative magnitude pruning and trains each beside three controls of the same density.

    Args:
        model: the network's factory.
        dataset: factory of the data; where it has no validation part, an eighth of the training part becomes it.
        rounds: how often to prune.
        rate: the share of the remaining weights that goes in a round.
        control_rounds: the rounds whose controls are trained; those beyond the last are left out.
        steps: updates of each training, of 64 examples.
        seeds: repetitions, each with data, a network and orders of its own.
    """
    beside = tuple(number for number in control_rounds if number <= rounds)
    common = dict(model=model, dataset=dataset, rounds=rounds, rate=rate, control_rounds=beside, steps=steps)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, rounds, rate, control_rounds, steps, seed) -> xr.Dataset:
    """The tickets of every round, one after another, then all controls as one fleet."""
    split, make_model = bench.setting(lab, model=model, dataset=dataset, seed=seed)
    recipe = bench.recipe(split, steps=steps)
    network = make_model(generator=lab.seed("network", seed)).to(lab.device)
    fit = functools.partial(train.fit, **recipe)
    tickets = prune.imp(
        network, split.train, fit, rounds=rounds, rate=rate, scope="global", generator=lab.seed("orders", seed)
    )
    fresh = functools.partial(make_model, generator=lab.seed("fresh network", seed))
    out = xr.Dataset({"density": ("round", [ticket.density for ticket in tickets])}, {"round": range(rounds + 1)})
    curves = xr.concat([ticket.watched for ticket in tickets if ticket.watched is not None], "round")
    out = out.assign({name: curves[name] for name in MEASURES})
    if not control_rounds:
        return out
    dense = tickets[0].model
    assert dense is not None
    controls = []
    for number in control_rounds:
        ticket = tickets[number]
        at_once = prune.one_shot(dense, density=ticket.density)
        controls += [
            prune.reinit_control(ticket, fresh),
            prune.random_mask_control(ticket, generator=lab.seed("mask", seed, number)),
            prune.Ticket(at_once, ticket.init_state, at_once.density, ticket.seed),
        ]
    trained = train.fleet(
        [control.network(network) for control in controls], split.train,
        masks=[control.masks for control in controls], generator=[control.seed for control in controls], **recipe,
    )  # fmt: skip
    grid = (len(control_rounds), len(CONTROLS))
    for name in MEASURES:
        values = trained.watched[name].transpose("member", "step").values
        dims = ("control_round", "control", "step")
        out[f"control_{name}"] = dims, values.reshape(*grid, -1)
    return out.assign_coords(control_round=list(control_rounds), control=list(CONTROLS))


CONTROL = (
    "At a density of 0.65, where little should be gained or lost, the ticket is ahead of fresh weights, too, by 0.028. "
    "Half of that is scale: survivors were chosen for their size, and fresh weights divided by the root of 0.65 are "
    "0.015 behind (five seeds)."
)
FEW = "The mean difference is under 0.003, but five seeds whose round is chosen by 500 signals leave it open by 0.02."


@study.claim("winning-beats-reinit", note=CONTROL)
def above_random_weights(result: xr.Dataset) -> xr.DataArray:
    return above_control(result, "random weights", 0.116)


@study.claim("mask-beats-random-mask")
def above_random_mask(result: xr.Dataset) -> xr.DataArray:
    return above_control(result, "random mask", 0.049)


@study.claim("matches-dense", note=FEW)
def above_dense(result: xr.Dataset) -> xr.DataArray:
    last = result.isel(step=-1, drop=True)
    density = result.density.mean("seed")
    inside = last.sel(round=((density >= 0.05) & (density <= 0.3)).values)
    if not inside.sizes["round"]:
        return not_applicable("no round has a density from 0.05 to 0.3")
    best = inside.validation_accuracy.argmax("round")
    return inside.test_accuracy.isel(round=best).drop_vars("round") - last.test_accuracy.sel(round=0, drop=True)


def above_control(result: xr.Dataset, control: str, density: float) -> xr.DataArray:
    """Final accuracy of the ticket minus that of a control at the control round of this density, seed by seed."""
    if "control_test_accuracy" not in result:
        return not_applicable("no controls were trained")
    densities = result.density.mean("seed").sel(round=result.control_round.values).values
    place = int(np.abs(densities - density).argmin())
    if not 0.8 * density < densities[place] < 1.25 * density:
        return not_applicable(f"no controls were trained at a density of about {density}")
    number = int(result.control_round[place])
    last = result.isel(step=-1, drop=True)
    ticket = last.test_accuracy.sel(round=number, drop=True)
    return ticket - last.control_test_accuracy.sel(control_round=number, control=control, drop=True)


def early_stop(result: xr.Dataset, whose: str = "") -> xr.Dataset:
    """The step of the smallest validation loss and the test accuracy there, of tickets or, "control_", of controls."""
    place = result[f"{whose}validation_loss"].argmin("step")
    accuracy = result[f"{whose}test_accuracy"].isel(step=place).drop_vars("step")
    return xr.Dataset({"accuracy": accuracy, "at": (place.dims, result.step.values[place.values])})


def winning(result: xr.Dataset) -> xr.DataArray:
    """The rounds whose tickets win: mean accuracy at most a standard deviation under the dense one's, and no slower."""
    last, stop = result.test_accuracy.isel(step=-1, drop=True), early_stop(result).at.mean("seed")
    dense = last.sel(round=0)
    good = last.mean("seed") >= dense.mean() - dense.std(ddof=1)
    return good & (stop <= stop.sel(round=0)) & (result["round"] > 0)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """By density for tickets and controls: accuracy at the end, accuracy and step where validation loss is smallest."""
    from plotly.subplots import make_subplots

    titles = ("test accuracy at the end", "at the smallest validation loss", "step of the smallest validation loss")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    colors = ("rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(120, 120, 120)", "rgb(122, 92, 170)")
    density = result.density.mean("seed")
    stop = early_stop(result)
    lines = [("ticket", density, result.test_accuracy, stop)]
    if "control" in result.dims:
        at, stop = density.sel(round=result.control_round.values), early_stop(result, "control_")
        for control in result.control.values:
            one = result.sel(control=control)
            lines.append((str(control), at, one.control_test_accuracy, stop.sel(control=control)))
    won = np.where(winning(result), "star", "circle")
    for (name, x, accuracy, stop), color in zip(lines, colors, strict=False):
        shown = {"x": x.values, "mode": "lines+markers", "line": {"color": color}, "legendgroup": name, "name": name}
        if name == "ticket":
            shown["marker"] = {"symbol": won, "size": np.where(won == "star", 12, 6)}
        for column, values in enumerate((accuracy.isel(step=-1), stop.accuracy, stop.at), start=1):
            spread = {"type": "data", "array": values.std("seed").values, "thickness": 1}
            drawing.add_scatter(
                y=values.mean("seed").values, error_y=spread, showlegend=column == 1, row=1, col=column, **shown
            )
    drawing.add_hline(y=float(result.test_accuracy.isel(step=-1).sel(round=0).mean()), line_dash="dot", row=1, col=1)
    ticks = {"tickvals": density.values, "tickformat": ".2g"}
    drawing.update_xaxes(type="log", autorange="reversed", title_text="share of weights left", **ticks)
    drawing.add_annotation(
        text="stars: tickets that win", xref="paper", yref="paper", x=0, y=1.12, showarrow=False, xanchor="left"
    )
    return drawing
