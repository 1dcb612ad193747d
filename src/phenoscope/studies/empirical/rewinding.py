"""After pruning: rewind the learning rate, rewind the weights, or fine-tune (Renda, Frankle, Carbin, ICLR 2020)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ... import data, prune, train
from ...lab import Study, not_applicable
from ..benches import tickets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

RATE, WEIGHT, FINETUNE = "rewind the rate", "rewind the weights", "fine-tune at the last rate"
EARLY = 0.05  # the share of the training whose weights are the early ones
SHORT, AT = 0.25, 0.05  # the share of the training that a short retraining makes again, and its density

study = Study(
    "rewinding",
    smoke=dict(densities=(0.05,), steps=300, seeds=2),
    gpu=dict(densities=(0.4, 0.2, 0.1, 0.05, 0.02, 0.01), steps=12_000, seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=data.mnist1d,
    densities: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02),
    steps: int = 1500,
    seeds: int = 6,
) -> xr.Dataset:
    """Prunes a trained network to several densities and retrains each with the same mask in several ways.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        densities: shares of the weights that are kept, those of the largest magnitude in the whole network.
        steps: updates of the first training, of 64 examples, and of the retraining.
        seeds: repetitions, each with data, a network and an order of its own.
    """
    common = dict(model=model, dataset=dataset, densities=densities, steps=steps)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, densities, steps, seed) -> xr.Dataset:
    """A network trained and pruned; then, way by way, all densities retrained as one fleet on the same batches."""
    split, make_model = bench.setting(lab, model=model, dataset=dataset, seed=seed, validation=False)
    network = make_model(generator=lab.seed("network", seed)).to(lab.device)
    early, late = round(EARLY * steps), round((1 - SHORT) * steps)
    recipe, order = bench.training(steps=steps), lab.seed("order", seed)
    dense = train.fit(network, split.train, states=train.States({early, late}), generator=order, **recipe)
    again = functools.partial(retrained, dense, split=split, recipe=recipe, order=order)
    whole, short = (ways(recipe["schedule"], steps=steps, back=back, early=early) for back in (steps, steps - late))
    accuracy = [again(plan, densities) for plan in whole.values()]
    return xr.Dataset(
        {
            "accuracy": (("way", "density"), accuracy),
            "short_accuracy": ("way", [again(plan, (AT,))[0] for plan in short.values()]),
            "dense_accuracy": train.accuracy(network, split.test),
        },
        {"way": list(whole), "density": list(densities)},
    )


def ways(schedule: train.schedule.Schedule, *, steps: int, back: int, early: int) -> dict[str, prune.Retraining]:
    """The three ways, and fine-tuning at every other rate of the schedule: the strongest that it can be."""
    plan = functools.partial(prune.retraining, steps=steps)
    found = {
        RATE: plan("lr-rewind", back=back, schedule=schedule),
        WEIGHT: plan("weight-rewind", back=min(back, steps - early), schedule=schedule),
        FINETUNE: plan("finetune", back=back, schedule=schedule),
    }
    for factor in sorted({schedule(step) for step in range(steps)})[1:]:
        constant = functools.partial(plan, "finetune", back=back, schedule=lambda _, factor=factor: factor)
        found[f"fine-tune at {factor:g} of the first rate"] = constant()
    return found


def retrained(
    dense: train.Fit, plan: prune.Retraining, densities: Sequence[float], *, split, recipe, order
) -> list[float]:
    """Test accuracy after retraining, one for each density."""
    masks = [prune.one_shot(dense.model, density=density) for density in densities]
    start = copy.deepcopy(dense.model)
    if plan.start is not None:
        start.load_state_dict(dense.states[plan.start])
    settings = recipe | {"steps": plan.steps, "schedule": plan.schedule}
    fleet = train.fleet(
        [start] * len(masks), split.train, masks=masks, generator=[order] * len(masks), **settings
    )  # fmt: skip
    return fleet.accuracy(split.test).tolist()


LARGE = (
    "Fine-tuning at the first, large rate throughout, drawn beside, does as well as rewinding: the last rate is too "
    "small, and a schedule matters less."
)


@study.claim("lr-rewind-beats-finetune", note=LARGE)
def rate_above_finetuning(result: xr.Dataset) -> xr.DataArray:
    return difference(result, RATE, FINETUNE, (0.1,))


@study.claim("weight-rewind-beats-finetune")
def weights_above_finetuning(result: xr.Dataset) -> xr.DataArray:
    return difference(result, WEIGHT, FINETUNE, (0.05,))


@study.claim("lr-rewind-no-worse-than-weight-rewind")
def rate_above_weights(result: xr.Dataset) -> xr.DataArray:
    return difference(result, RATE, WEIGHT, (0.1, 0.05, 0.02))


def difference(result: xr.Dataset, one: str, other: str, densities: tuple[float, ...]) -> xr.DataArray:
    """Accuracy of one way minus that of another, averaged over densities, seed by seed."""
    missing = [density for density in densities if not np.isclose(result.density, density).any()]
    if missing:
        return not_applicable(f"nothing was pruned to a density of {missing[0]}")
    accuracy = result.accuracy.sel(density=list(densities), method="nearest").mean("density")
    return accuracy.sel(way=one, drop=True) - accuracy.sel(way=other, drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Test accuracy by density when retrained as long as trained, and at one density a quarter as long."""
    from plotly.subplots import make_subplots

    titles = ("retrained as long as trained", f"a quarter as long, density {AT:g}")
    drawing = make_subplots(
        rows=1, cols=2, subplot_titles=titles, column_widths=[0.68, 0.32], shared_yaxes=True, horizontal_spacing=0.04
    )
    colors = ("rgb(46, 124, 196)", "rgb(122, 92, 170)", "rgb(214, 104, 44)", "rgb(150, 150, 150)", "rgb(90, 90, 90)")
    for number, way in enumerate(result.way.values):
        one, color = result.sel(way=way), colors[number % len(colors)]
        dash = "solid" if way in (RATE, WEIGHT, FINETUNE) else "dot"
        for column, x, values in ((1, result.density.values, one.accuracy), (2, [str(way)], one.short_accuracy)):
            spread = {"type": "data", "array": np.atleast_1d(values.std("seed")), "thickness": 1}
            drawing.add_scatter(
                x=x, y=np.atleast_1d(values.mean("seed")), error_y=spread, name=str(way), legendgroup=str(way),
                mode="lines+markers", line={"color": color, "dash": dash}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    drawing.add_hline(y=float(result.dense_accuracy.mean()), line_dash="dot", annotation_text="whole network")
    drawing.update_xaxes(type="log", autorange="reversed", title_text="share of weights left", row=1, col=1)
    drawing.update_xaxes(tickvals=result.density.values, tickformat=".2g", row=1, col=1)
    drawing.update_xaxes(showticklabels=False, row=1, col=2)
    drawing.update_yaxes(title_text="test accuracy", row=1, col=1)
    return drawing
