"""The early phase of training: what the first steps leave in a sparse network (Frankle, Schwab, Morcos, ICLR 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import xarray as xr

from ... import data, measure, prune, stats, train
from ...lab import Study, not_applicable
from ..benches import tickets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

UNTOUCHED, START = "untouched", "initial weights"
MAGNITUDES, PLACES = "magnitudes redrawn", "shuffled in layers"
FRESH = "fresh weights"  # beside the seven arms: where even these do as well, nothing can be said
ARMS: dict[str, dict[str, Any]] = {
    MAGNITUDES: dict(kind="reinit-same-sign"),
    PLACES: dict(kind="shuffle-layer"),
    "magnitudes shuffled in units": dict(kind="shuffle-filter-signs-kept"),
    "noise of 0.5": dict(kind="noise", scale=0.5),
    "noise of 3": dict(kind="noise", scale=3.0),
    FRESH: dict(kind="reinit"),
}
SEVEN = [UNTOUCHED, START, *(arm for arm in ARMS if arm != FRESH)]
EARLY = 0.05  # the share of the training after which weights are disturbed
FEW = 10  # the step at which the first gradients are measured

study = Study(
    "early-phase",
    smoke=dict(arms=(MAGNITUDES, PLACES), steps=300, seeds=2),
    gpu=dict(steps=12_000, seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=data.mnist1d,
    density: float = 0.1,
    arms: tuple[str, ...] = tuple(ARMS),
    steps: int = 1500,
    seeds: int = 6,
) -> xr.Dataset:
    """Follows a training closely, then trains its pruned network on from early weights disturbed in several ways.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        density: share of the weights that is kept, those of the largest magnitude at the end.
        arms: the ways to disturb, beside untouched early weights and those of the initialization.
        steps: updates of the first training, of 64 examples; the sparse networks make those after the early ones.
        seeds: repetitions, each with data, a network and an order of its own.
    """
    common = dict(model=model, dataset=dataset, density=density, arms=arms, steps=steps)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, density, arms, steps, seed) -> xr.Dataset:
    """One network followed while it trains; then all sparse networks as one fleet, all on the same batches."""
    split, make_model = bench.setting(lab, model=model, dataset=dataset, seed=seed, validation=False)
    network = make_model(generator=lab.seed("network", seed)).to(lab.device)
    early, order, recipe = round(EARLY * steps), lab.seed("order", seed), bench.training(steps=steps)
    powers = {2**power for power in range(steps.bit_length())}
    whole = measure.early_phase(
        network, split.train, functools.partial(train.fit, **recipe), steps=steps, test=split.test,
        at=powers | {FEW, early, steps // 10}, batch_size=bench.BATCH, generator=order,
    )  # fmt: skip
    masks = prune.one_shot(network, density=density)
    start, later = whole.states[0], whole.states[early]
    states = {UNTOUCHED: later, START: later | {name: start[name] for name in masks}}  # biases stay in all arms
    tickets = {name: prune.Ticket(masks, state, density, order) for name, state in states.items()}
    disturb = functools.partial(prune.perturb_ticket, tickets[UNTOUCHED], init_state=start, make_model=make_model)
    tickets |= {arm: disturb(**ARMS[arm], generator=lab.seed("disturbed", arm, seed)) for arm in arms}
    again = prune.retraining("weight-rewind", steps=steps, back=steps - early, schedule=recipe["schedule"])
    trained = train.fleet(
        [ticket.network(network) for ticket in tickets.values()], split.train, masks=masks,
        generator=[order] * len(tickets), **recipe | {"steps": again.steps, "schedule": again.schedule},
    )  # fmt: skip
    size = functools.partial(prune.perturbation_size, tickets[UNTOUCHED], init_state=start)
    return whole.watched.assign(
        accuracy=("arm", trained.accuracy(split.test).tolist()),
        size=("arm", [size(ticket) for ticket in tickets.values()]),
    ).assign_coords(arm=list(tickets))


@study.claim("signs-are-not-enough")
def above_redrawn_magnitudes(result: xr.Dataset) -> xr.DataArray:
    return above(result, MAGNITUDES)


@study.claim("shuffling-hurts")
def above_shuffled(result: xr.Dataset) -> xr.DataArray:
    return above(result, PLACES)


@study.claim("damage-follows-perturbation-size")
def accuracy_by_size(result: xr.Dataset) -> xr.DataArray:
    if reason := void(result, SEVEN):
        return not_applicable(reason)
    means = result[["accuracy", "size"]].sel(arm=SEVEN).mean("seed")
    return stats.spearman(means.accuracy, means["size"], dim="arm")


@study.claim("fast-early-motion-signs")
def flips_made_early(result: xr.Dataset) -> xr.DataArray:
    steps = int(result.step[-1])
    return result.flips_made.sel(layer="all", step=steps // 10, drop=True).mean("seed")


UNFINISHED = (
    "1,500 steps end at a training accuracy of 98 %, where the gradient of 64 examples is mostly their noise. In steps "
    "0 to 4 the mean absolute gradient is over 3 times that of the end, at step 10 no longer. After 6,000 steps, when "
    "all examples are fitted, that of step 10 is 40 times that of the end (two seeds)."
)


@study.claim("fast-early-motion-gradients", note=UNFINISHED)
def gradients_early_to_late(result: xr.Dataset) -> xr.DataArray:
    gradient = result.gradient.sel(layer="all", drop=True)
    return (gradient.sel(step=FEW, drop=True) / gradient.isel(step=-1, drop=True)).mean("seed")


def above(result: xr.Dataset, arm: str) -> xr.DataArray:
    """Accuracy from untouched early weights minus that of an arm, seed by seed."""
    if reason := void(result, [arm]):
        return not_applicable(reason)
    return result.accuracy.sel(arm=UNTOUCHED, drop=True) - result.accuracy.sel(arm=arm, drop=True)


def void(result: xr.Dataset, arms: list[str]) -> str:
    """Why nothing can be said about early weights, if so."""
    if missing := [arm for arm in arms if arm not in result.arm]:
        return f"the arm {missing[0]!r} was not trained"
    if FRESH in result.arm:
        lost = float((result.accuracy.sel(arm=UNTOUCHED) - result.accuracy.sel(arm=FRESH)).mean())
        if lost < 0.005:
            return f"even fresh weights lose only {lost:.2%} here: any start is as good at this density"
    return ""


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy by size of the disturbance; gradients, signs and distances over the steps of the whole network."""
    from plotly.subplots import make_subplots

    titles = ("sparse network: accuracy by size of the disturbance", "whole network while it trains")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.1)
    for arm in result.arm.values:
        one = result.sel(arm=arm)
        drawing.add_scatter(
            x=[float(one["size"].mean())], y=[float(one.accuracy.mean())], name=str(arm), mode="markers",
            error_y={"type": "data", "array": [float(one.accuracy.std())], "thickness": 1},
            marker={"size": 10, "symbol": "x" if arm == FRESH else "circle"}, legendgroup="sparse",
            legendgrouptitle={"text": "sparse network"}, row=1, col=1,
        )  # fmt: skip
    whole = result.sel(layer="all").mean("seed")
    lines = {
        "gradients, of the first": whole.gradient / whole.gradient.isel(step=0),
        "sign changes made": whole.flips_made,
        "distance from the start": whole.from_start / whole.from_start.isel(step=-1),
        "path": whole.path / whole.path.isel(step=-1),
        "cosine with the start": whole.cosine,
    }
    for name, line in lines.items():
        drawing.add_scatter(
            x=result.step.values + 1, y=line.values, name=name, mode="lines+markers", legendgroup="whole",
            legendgrouptitle={"text": "whole network"}, row=1, col=2,
        )  # fmt: skip
    drawing.update_xaxes(title_text="standard deviation of the disturbance, in that of the initialization", col=1)
    drawing.update_xaxes(type="log", title_text="steps, plus one", col=2)  # step 0 has a place, too
    drawing.update_yaxes(title_text="test accuracy", col=1)
    return drawing
