"""Networks that generalize also fit random labels (Zhang, Bengio, Hardt, Recht and Vinyals, ICLR 2017)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import xarray as xr

from ... import data, measure, models, theory, train
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

KINDS = ("true", 0.2, 0.5, "random", "shuffled_pixels", "random_pixels", "gaussian")
REGULARIZERS = ("none", "weight decay", "dropout")
DECAY, DROPOUT = 1e-3, 0.5
BATCH = 100
FITTED = 0.99  # training accuracy
END = 0.01  # mean training loss at which a network counts as trained
POINTS, DIMENSIONS = 200, 64  # of the network that is written down

digits = functools.partial(data.digits, train=1000)
mlp = functools.partial(models.mlp, width=512, depth=1)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)

study = Study(
    "random-labels",
    smoke=dict(model=functools.partial(models.mlp, width=64, depth=1), kinds=("true", "random"), steps=200, seeds=1),
    gpu=dict(model=functools.partial(models.mlp, width=512, depth=3), steps=10000, seeds=20),
)


@study.experiment
def experiment(
    lab, *, model=mlp, dataset=digits, kinds: tuple[float | str, ...] = KINDS, steps: int = 2500, seeds: int = 5
) -> xr.Dataset:
    """Trains one network in one way on true labels, wrong labels and meaningless inputs, until it fits.

    Args:
        model: the network's factory; it takes `dropout`, or the arm with dropout is left out.
        dataset: factory of the data.
        kinds: what is made of the training data; a number is the share of labels drawn at random.
        steps: updates of 100 examples at most, the same for all; a network ends at a mean training loss of 0.01.
        seeds: repetitions, each with a split, a network and random labels of its own.
    """
    common = dict(model=model, dataset=dataset, kinds=kinds, steps=steps)
    found = xr.concat(lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)]), "seed", join="outer")
    return found.assign(interpolator_error=interpolator_error(lab)).assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, kinds, steps, seed) -> xr.Dataset:
    """Every kind without a regularizer, true and random labels with each, and two random classes."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)

    def tested(make, kinds, part=split, **decay) -> xr.Dataset:
        fit = functools.partial(
            train.fit, steps=steps, optimizer=functools.partial(SGD, **decay), batch_size=BATCH, stop_at=END
        )
        return measure.randomization_test(
            make, part.train, part.test, fit, kinds=kinds, repeats=1, every=-(-len(part.train[0]) // BATCH),
            fitted=FITTED, generator=lab.seed("draws", seed), device=lab.device,
        ).isel(repeat=0, drop=True)  # fmt: skip

    ends = [kind for kind in ("true", "random") if kind in kinds]
    arms = {"none": tested(model, kinds), "weight decay": tested(model, ends, weight_decay=DECAY)}
    if takes_dropout(model):
        arms["dropout"] = tested(functools.partial(model, dropout=DROPOUT), ends)
    names = [str(kind) for kind in kinds]
    together = xr.concat([arm.drop_vars("curve") for arm in arms.values()], "regularizer", join="outer")
    two = type(split)(
        (split.train[0], split.train[1] % 2), None, (split.test[0], split.test[1] % 2), split.range, ("0", "1"), ""
    )
    memorized = tested(model, ("random",), two).train_accuracy.item()
    return together.assign_coords(regularizer=list(arms)).reindex(kind=names).assign(
        curve=arms["none"].curve, rademacher=2 * memorized - 1
    )  # fmt: skip


def takes_dropout(model) -> bool:
    import inspect

    return "dropout" in inspect.signature(model).parameters


def interpolator_error(lab) -> float:
    """The largest error of the network that is written down, on random points and values."""
    generator = torch.Generator().manual_seed(lab.seed("interpolator"))
    x = torch.randn(POINTS, DIMENSIONS, dtype=torch.float64, generator=generator)
    y = torch.randn(POINTS, dtype=torch.float64, generator=generator)
    network = theory.exact_interpolator(x, y, generator=lab.seed("direction"))
    with torch.no_grad():
        return float((network(x) - y).abs().max())


@study.claim("fits-random-labels-training")
def train_accuracy_on_random_labels(result: xr.Dataset) -> xr.DataArray:
    return of(result.train_accuracy, "random").min("seed")


@study.claim("fits-random-labels-test")
def test_accuracy_after_random_labels(result: xr.Dataset) -> xr.DataArray:
    return of(result.test_accuracy, "random").mean("seed")


@study.claim("only-a-small-factor-slower")
def times_slower(result: xr.Dataset) -> xr.DataArray:
    ratio = of(result.fit_steps, "random") / of(result.fit_steps, "true")
    if bool(ratio.isnull().any()):
        return not_applicable("some network never reached a training accuracy of 99 %")
    return ratio.mean("seed")


@study.claim("only-a-small-factor-slower-all-fit")
def share_that_fits(result: xr.Dataset) -> xr.DataArray:
    return of(result.fit_steps, "random").notnull().mean("seed")


@study.claim("regularisation-is-not-the-cause-gain")
def gain_by_regularizer(result: xr.Dataset) -> xr.DataArray:
    if "dropout" not in result.regularizer:
        return not_applicable("the network takes no dropout")
    means = result.test_accuracy.sel(kind="true").mean("seed")
    return means.sel(regularizer=["weight decay", "dropout"]).max() - means.sel(regularizer="none", drop=True)


@study.claim("regularisation-is-not-the-cause-labels")
def gain_by_labels(result: xr.Dataset) -> xr.DataArray:
    return (of(result.test_accuracy, "true") - of(result.test_accuracy, "random")).mean("seed")


@study.claim("regularisation-is-not-the-cause-still-fits")
def train_accuracy_with_decay(result: xr.Dataset) -> xr.DataArray:
    return of(result.train_accuracy, "random", "weight decay").mean("seed")


@study.claim("exact-expressivity")
def largest_error(result: xr.Dataset) -> xr.DataArray:
    return result.interpolator_error


def of(values: xr.DataArray, kind: str, regularizer: str = "none") -> xr.DataArray:
    """One value a seed."""
    return values.sel(kind=kind, regularizer=regularizer, drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Training accuracy over time by kind, mean over seeds; test accuracy by kind and by regularizer."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        rows=1, cols=2, subplot_titles=("training accuracy over time", "test accuracy, all seeds"), column_widths=(3, 2)
    )
    colors = ("#2e7cc4", "#7a5caa", "#b05a9a", "#d6682c", "#3a9a6a", "#8a8a3a", "#787878")
    for number, kind in enumerate(result.kind.values):
        curve = result.curve.sel(kind=kind).transpose("seed", "step").to_pandas().ffill(axis=1).mean()
        color = colors[number % len(colors)]
        name = f"{float(kind):.0%} random labels" if kind[0].isdigit() else kind.replace("_", " ")
        drawing.add_scatter(x=curve.index, y=curve, mode="lines", name=name, line={"color": color}, row=1, col=1)
        for regularizer, symbol in zip(REGULARIZERS, ("circle", "square", "x"), strict=True):
            if regularizer in result.regularizer:
                values = of(result.test_accuracy, kind, regularizer).dropna("seed")
                drawing.add_scatter(
                    x=[name] * values.size, y=values, mode="markers", marker={"color": color, "symbol": symbol},
                    name=f"{name}, {regularizer}", showlegend=False, row=1, col=2,
                )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="step", row=1, col=1)
    drawing.update_yaxes(range=(0, 1.02))
    return drawing
