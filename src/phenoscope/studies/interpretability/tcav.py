"""TCAV: quantitative testing with concept activation vectors (Kim, Wattenberg, Gilmer et al., ICML 2018)."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, explain, models, train
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

ARMS = {"A": (0.95, 0.05), "B": (0.25, 0.25)}  # share of stripes in class 0 and in the others
CONCEPTS = ("stripes", "dots", "red")
COLORS = ("red", "green", "blue", "yellow")
TEXTURES = ("stripes", "flat", "dots")
MIXED = ("stripes", "flat", "dots", "checks", "noise", "smooth")
EXAMPLES = 50
SHUFFLES = 100_000

small_cnn = functools.partial(models.cnn, width=(16, 32, 32), pool=(2, 2, 2), hidden=(64,))

study = Study(
    "tcav",
    smoke=dict(seeds=1, doses=(), runs=8, pseudo=4, fakes=2, images=300, epochs=1),
    gpu=dict(seeds=10, dose_seeds=10, images=20_000, epochs=30),
)


@study.experiment
def experiment(
    lab,
    *,
    model=small_cnn,
    layer: str = "act3",
    doses: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    runs: int = 20,
    pseudo: int = 45,
    fakes: int = 100,
    images: int = 2000,
    epochs: int = 10,
    seeds: int = 3,
    dose_seeds: int = 2,
) -> xr.Dataset:
    """Networks that tell four blurred shapes apart, with stripes tied to one of them or not; concepts from patches.

    Args:
        model: the network's factory.
        layer: where concepts are sought, a name within the model; by default the last convolution after its rectifier.
        doses: correlations of stripes with class 0 in the training images.
        runs: concept vectors of each concept, each against a random set of its own.
        pseudo: random sets in a concept's place, from which the test takes its null distribution.
        fakes: further random sets that are tested as if they were concepts.
        images: training images.
        epochs: of training.
        seeds: networks with stripes tied to class 0 (A), and as many with stripes independent of it (B).
        dose_seeds: networks of each dose.
    """
    common = dict(model=model, layer=layer, runs=runs, images=images, epochs=epochs)
    cells = {}
    for seed in range(seeds):
        for arm, rates in ARMS.items():
            own = len(range(seed, fakes, seeds)) if arm == "A" else 0
            cells[rates, seed] = dict(rates=rates, seed=seed, pseudo=pseudo, fakes=own, **common)
    for seed in range(dose_seeds):
        for dose in doses:  # without correlation a network is one of arm B
            cells.setdefault((rates_of(dose), seed), dict(rates=rates_of(dose), seed=seed, pseudo=2, fakes=0, **common))
    found = dict(zip(cells, lab.map(one_network, list(cells.values())), strict=True))
    arms = [
        xr.concat([found[rates, seed].drop_dims("fake") for seed in range(seeds)], "seed") for rates in ARMS.values()
    ]
    result = xr.concat(arms, "arm").assign_coords(arm=list(ARMS), seed=range(seeds))
    tested = xr.concat([found[ARMS["A"], seed][["fake_p"]] for seed in range(seeds)], "fake")
    result["fake_p"] = tested.fake_p.assign_coords(fake=range(tested.sizes["fake"]))
    if doses and dose_seeds:
        followed = [
            xr.concat([found[rates_of(dose), seed][["score", "drop"]] for seed in range(dose_seeds)], "dose_seed")
            for dose in doses
        ]
        curve = xr.concat(followed, "dose").assign_coords(dose=list(doses), dose_seed=range(dose_seeds))
        result["dose_score"] = curve.score.sel(concept="stripes", drop=True)
        result["dose_drop"] = curve["drop"]
    return result


def rates_of(dose: float) -> tuple[float, float]:
    """Shares of stripes in class 0 and in the others at which having them correlates with being class 0 by `dose`.

    A quarter of all images has stripes, as a quarter is of class 0, so that the correlation may reach 1.
    """
    return 0.25 + 0.75 * dose, 0.25 - 0.25 * dose


def one_network(lab, *, model, layer, rates, seed, pseudo, fakes, runs, images, epochs) -> xr.Dataset:
    """Trains one network, measures how much it relies on stripes, and tests the concepts in its layer."""
    scenes = scenes_of(rates, images, lab.seed("scenes", seed)).to(lab.device)
    network = train.build(
        model, shape=tuple(scenes.train[0].shape[1:]), num_classes=4, generator=lab.seed("network", seed)
    ).to(lab.device)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    train.fit(network, scenes.train, epochs=epochs, optimizer=adam, generator=lab.seed("order", seed))

    def patches(name: str, kinds, n: int, colors=COLORS) -> Tensor:
        drawn = data.texture(kinds, n, colors=colors, generator=lab.seed("patches", name, seed))
        return scenes.normalize(drawn).to(lab.device)

    concepts = {
        "stripes": patches("stripes", "stripes", EXAMPLES),
        "dots": patches("dots", "dots", EXAMPLES),
        "red": patches("red", MIXED, EXAMPLES, colors=("red",)),
    }
    sets = patches("random", MIXED, (runs + pseudo + fakes) * EXAMPLES).split(EXAMPLES)
    tested = {f"fake {i}": each for i, each in enumerate(sets[runs + pseudo :])}
    x, y = scenes.test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the small presets have too little for a test, and are not judged
        results = explain.tcav(
            network, layer, concepts | tested, sets[: runs + pseudo], x[y == 0], 0,
            runs=runs, generator=lab.seed("tcav", seed),
        )  # fmt: skip

    def p_values(names) -> np.ndarray:
        values = [[results[name].p_random_means, results[name].p_welch] for name in names]
        return np.reshape(values, (len(values), 2)).T.astype(float)

    return xr.Dataset(
        {
            "score": ("concept", [results[name].score for name in CONCEPTS]),
            "magnitude": ("concept", [float(results[name].magnitudes.mean()) for name in CONCEPTS]),
            "cav_accuracy": ("concept", [float(results[name].cav_accuracy.mean()) for name in CONCEPTS]),
            "p": (("test", "concept"), p_values(CONCEPTS)),
            "fake_p": (("test", "fake"), p_values(tested)),
            "drop": reliance(network, scenes),
            "accuracy": train.accuracy(network, scenes.test),
        },
        {"concept": list(CONCEPTS), "test": ["random_means", "welch"]},
    )


def scenes_of(rates: tuple[float, float], images: int, seed: int) -> data.Scenes:
    """Four shapes that fade into their background, so that texture is the easier cue where it tells something."""
    own, others = ([rate, (1 - rate) / 2, (1 - rate) / 2] for rate in rates)
    return data.shapes(
        train=images, test=800, classes=("circle", "square", "triangle", "cross"), radius=(7, 10), soft=20.0,
        textures=TEXTURES, colors=COLORS, background_colors=("gray",), background_contrast=0.05,
        correlate={"texture": [own, others, others, others]}, generator=seed,
    )  # fmt: skip


def reliance(network: nn.Module, scenes: data.Scenes) -> float:
    """By how much the accuracy on images of class 0 drops when the very same images lose their stripes."""
    rows = (scenes.test[1] == 0).cpu()
    factors = scenes.factors["test"][rows]
    right = []
    for texture in ("stripes", "flat"):
        x, _ = scenes.render(factors.change(texture=texture))
        x = x.to(scenes.test[0].device)
        right.append(train.accuracy(network, (x, torch.zeros(len(x), dtype=torch.long, device=x.device))))
    return right[0] - right[1]


@study.claim("detects-used-concept")
def score_with_and_without_use(result: xr.Dataset) -> xr.DataArray:
    stripes = result.score.sel(concept="stripes", drop=True)
    return stripes.sel(arm="A", drop=True) - stripes.sel(arm="B", drop=True)


@study.claim("tracks-reliance-rho")
def rank_correlation(result: xr.Dataset) -> xr.DataArray:
    if "dose" not in result.dims:
        return not_applicable("no doses were run")
    scores, drops = centered_ranks(result.dose_score), centered_ranks(result.dose_drop)
    if not scores.any() or not drops.any():
        return not_applicable("all networks have the same score, or lose the same accuracy")
    return xr.DataArray(float(scores @ drops / np.sqrt((scores @ scores) * (drops @ drops))))


@study.claim("tracks-reliance-p")
def permutation_p(result: xr.Dataset) -> xr.DataArray:
    if "dose" not in result.dims:
        return not_applicable("no doses were run")
    scores, drops = centered_ranks(result.dose_score), centered_ranks(result.dose_drop)
    if not scores.any() or not drops.any():
        return not_applicable("all networks have the same score, or lose the same accuracy")
    shuffled = np.random.default_rng(0).permuted(np.tile(scores, (SHUFFLES, 1)), axis=1)
    as_high = (shuffled @ drops >= scores @ drops - 1e-9).sum()
    return xr.DataArray(float(1 + as_high) / (1 + SHUFFLES))


@study.claim("random-concepts-fail-the-test")
def judged_significant(result: xr.Dataset) -> xr.DataArray:
    p = result.fake_p.sel(test="random_means", drop=True)
    return (p < 0.05).astype(float).rename(fake="concept").assign_coords(concept=range(p.sizes["fake"]))


def centered_ranks(values: xr.DataArray) -> np.ndarray:
    """Ranks over all points, equal ones sharing theirs, minus their mean."""
    from scipy import stats

    ranks = stats.rankdata(values.values.ravel())
    return ranks - ranks.mean()


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Scores with and without use; score against reliance; p-values of concepts that mean nothing."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 3, subplot_titles=("score for class 0", "score and reliance on stripes", "tests of fake concepts")
    )
    colors = ("rgb(46, 124, 196)", "rgb(214, 104, 44)")
    names = {"A": "stripes tied to class 0", "B": "stripes independent"}
    for arm, color in zip(result.arm.values, colors, strict=True):
        values = result.score.sel(arm=arm)
        drawing.add_scatter(
            x=np.repeat(values.concept.values, values.sizes["seed"]),
            y=values.transpose("concept", "seed").values.ravel(),
            mode="markers",
            marker={"color": color, "size": 9, "opacity": 0.7},
            name=names[str(arm)],
            row=1,
            col=1,
        )
    if "dose" in result.dims:
        flat = result[["dose_score", "dose_drop"]].stack(point=("dose", "dose_seed"))
        drawing.add_scatter(
            x=flat.dose_drop, y=flat.dose_score, mode="markers", showlegend=False, row=1, col=2,
            marker={"color": flat.dose.values, "colorscale": "Viridis", "size": 9},
            text=[f"correlation {dose}" for dose in flat.dose.values],
        )  # fmt: skip
    for test, color in zip(result.test.values, colors[::-1], strict=True):
        drawing.add_trace(
            go.Histogram(
                x=result.fake_p.sel(test=test), xbins={"start": 0, "end": 1, "size": 0.05}, opacity=0.6,
                marker_color=color, name={"random_means": "rank among random sets", "welch": "Welch's t"}[str(test)],
            ),
            row=1, col=3,
        )  # fmt: skip
    drawing.update_layout(barmode="overlay")
    drawing.update_yaxes(title_text="share of inputs whose logit rises", range=[-0.05, 1.05], row=1, col=1)
    drawing.update_xaxes(title_text="accuracy lost without stripes", row=1, col=2)
    drawing.update_yaxes(title_text="TCAV score of stripes", row=1, col=2)
    drawing.update_xaxes(title_text="p-value", row=1, col=3)
    drawing.update_yaxes(title_text="fake concepts", row=1, col=3)
    return drawing
