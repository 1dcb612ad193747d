"""Integrated gradients: axiomatic attribution for deep networks (Sundararajan, Taly, Yan, ICML 2017)."""

from __future__ import annotations

import copy
import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, explain, models, train
from ...lab import Study, not_applicable
from ..benches import digits_explained as bench

if TYPE_CHECKING:
    import plotly.graph_objects

RULES = ("midpoint", "right")
METHODS = ("integrated gradients", "DeepLIFT", "gradient x input")
CERTAIN = 0.99

study = Study(
    "integrated-gradients",
    smoke=dict(seeds=1, images=40, nodes=(5, 50), epochs=3),
    gpu=dict(
        seeds=10, images=500, model=models.vgg, dataset=functools.partial(data.digits, 32, 3, train=1297, scale="unit")
    ),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.cnn,
    dataset=bench.digits,
    images: int = 200,
    nodes: tuple[int, ...] = (5, 10, 20, 50, 100, 300),
    epochs: int = 30,
    seeds: int = 5,
) -> xr.Dataset:
    """Explains the probability of the predicted class, and the same network with its pooling wired in two other ways.

    Args:
        model: the network's factory; pooling is rewired where it is max pooling of 2x2 pixels.
        dataset: factory of the data.
        images: test images to explain.
        nodes: numbers of points on the path at which gradients are taken.
        epochs: of training.
        seeds: repetitions, each with a split, a network and an order of its own.
    """
    common = dict(model=model, dataset=dataset, images=images, nodes=nodes, epochs=epochs)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    return xr.concat(found, "seed").assign_coords(seed=range(seeds))


def one_seed(lab, *, model, dataset, images, nodes, epochs, seed) -> xr.Dataset:
    """Completeness by rule and number of nodes, gradients where the network is certain, three wirings of pooling."""
    split, network = bench.trained(lab, model=model, dataset=dataset, epochs=epochs, seed=seed)
    x = split.test[0][:images]
    network.eval()
    with torch.no_grad():
        probability, decided = network(x).softmax(1).max(1)
    asked = dict(target=decided, output="probability")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few nodes miss much, which is what is measured
        gaps = [
            [explain.integrated_gradients(network, x, rule=rule, steps=count, **asked).relative_gap for count in nodes]
            for rule in RULES
        ]
    product = explain.gradient_x_input(network, x, **asked)
    missed = explain.completeness(network, x, product, **asked)
    change = product.flatten(1).sum(1) - missed
    differences, outputs = rewired(network, x, split.train[0].mean(0), decided)
    return xr.Dataset(
        {
            "gap": (("rule", "node_count", "image"), numbers(torch.stack([torch.stack(row) for row in gaps]))),
            "gradient_share": ("image", numbers(product.flatten(1).sum(1).abs() / change.abs())),
            "gradient_gap": ("image", numbers(missed.abs() / change.abs())),
            "probability": ("image", numbers(probability)),
            "difference": (("attribution", "image"), differences),
            "output_difference": outputs,
            "accuracy": train.accuracy(network, split.test),
        },
        {"rule": list(RULES), "node_count": list(nodes), "attribution": list(METHODS), "image": range(len(x))},
    )


def rewired(network: nn.Module, x: Tensor, baseline: Tensor, decided: Tensor) -> tuple[np.ndarray, float]:
    """How much attributions (attribution, image) differ between two equal networks, and how much their outputs do.

    The difference is the L1 distance of two maps over the mean of their L1 norms. DeepLIFT explains the logit, as it is
    defined, the others the probability. In float64, so that only the wiring can show. NaN where nothing is rewired.
    """
    twins = [with_pooling(network, Tournament).double(), with_pooling(network, Chain).double()]
    if not any(isinstance(module, Tournament) for module in twins[0].modules()):
        return np.full((len(METHODS), len(x)), np.nan), float("nan")
    x = x.double()
    integrated = functools.partial(
        explain.integrated_gradients, target=decided, output="probability", baseline=baseline, steps=100
    )
    product = functools.partial(explain.gradient_x_input, target=decided, output="probability", baseline=baseline)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the probability hardly changes, 100 nodes may miss 5 % of it
        maps = [
            [integrated(twin, x).values, explain.deeplift(twin, x, decided, baseline=baseline).values, product(twin, x)]
            for twin in twins
        ]
    rows = [
        2 * (one - other).flatten(1).abs().sum(1) / (one.abs() + other.abs()).flatten(1).sum(1)
        for one, other in zip(*maps, strict=True)
    ]
    with torch.no_grad():
        outputs = [net.double()(x) for net in (copy.deepcopy(network), *twins)]
    apart = max(float((outputs[0] - each).abs().max()) for each in outputs[1:])
    if apart > 1e-5:
        raise RuntimeError(f"the rewired networks give other outputs, by {apart:.2g}")
    return numbers(torch.stack(rows)), apart


def larger(a: Tensor, b: Tensor) -> Tensor:
    """The maximum of two, made of one rectifier."""
    return a + torch.relu(b - a)


class Tournament(nn.Module):
    """Max pooling of 2x2 pixels: two pairs, then the winners."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = quarters(x)
        return larger(larger(a, b), larger(c, d))


class Chain(nn.Module):
    """Max pooling of 2x2 pixels: the first against the third, the winner against the fourth, then the second."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = quarters(x)
        return larger(larger(larger(a, c), d), b)


def quarters(x: Tensor) -> list[Tensor]:
    """The four pixels of every 2x2 window, row by row; an odd last row or column belongs to none."""
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    return [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]


def with_pooling(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A copy of the network with other modules in place of its 2x2 max pooling."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.MaxPool2d) and plain(module):
            parent, _, last = name.rpartition(".")
            setattr(copied.get_submodule(parent), last, kind())
    return copied


def plain(pool: nn.MaxPool2d) -> bool:
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return [each if isinstance(each, tuple) else (each, each) for each in settings] == [(2, 2), (2, 2), (0, 0), (1, 1)]


def numbers(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


@study.claim("few-steps")
def gap_with_fifty_nodes(result: xr.Dataset) -> xr.DataArray:
    if 50 not in result.node_count:
        return not_applicable("50 nodes were not run")
    return result.gap.sel(rule="midpoint", node_count=50, drop=True).median("image")


@study.claim("saturated-gradient")
def explained_by_the_gradient(result: xr.Dataset) -> xr.DataArray:
    certain = result.gradient_share.where(result.probability > CERTAIN)
    if bool(certain.isnull().all("image").any()):
        return not_applicable(f"a network is certain of none of its images: no probability over {CERTAIN}")
    return certain.median("image")


@study.claim("implementation-invariance-gap")
def deeplift_difference_beyond_ig(result: xr.Dataset) -> xr.DataArray:
    if bool(result.difference.isnull().all()):
        return not_applicable("the network has no max pooling of 2x2 pixels to rewire")
    by_seed = result.difference.mean("image")
    return by_seed.sel(attribution="DeepLIFT", drop=True) - by_seed.sel(attribution="integrated gradients", drop=True)


@study.claim("implementation-invariance-ig")
def ig_difference(result: xr.Dataset) -> xr.DataArray:
    if bool(result.difference.isnull().all()):
        return not_applicable("the network has no max pooling of 2x2 pixels to rewire")
    return result.difference.sel(attribution="integrated gradients", drop=True).mean()


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Completeness by number of nodes; the gradient's share by certainty; two wirings of one function."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(
        1, 3, subplot_titles=("missed by the sum", "explained by gradient x input", "two wirings, one function")
    )
    blue, orange, gray = "rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(120, 120, 120)"
    for rule, color in zip(result.rule.values, (blue, orange), strict=True):
        median = result.gap.sel(rule=rule).median("image")
        drawing.add_scatter(
            x=median.node_count, y=median.mean("seed"), mode="lines+markers", name=f"{rule} sum",
            line={"color": color}, error_y={"type": "data", "array": median.std("seed").values, "thickness": 1},
            row=1, col=1,
        )  # fmt: skip
    drawing.add_hline(y=0.05, line_dash="dot", row=1, col=1)
    drawing.add_scatter(
        x=(1 - result.probability).values.ravel(), y=result.gradient_share.values.ravel(), mode="markers",
        marker={"color": gray, "size": 3, "opacity": 0.6}, name="an image", row=1, col=2,
    )  # fmt: skip
    for method in result.attribution.values:
        drawing.add_box(
            y=result.difference.sel(attribution=method).values.ravel(), name=str(method), showlegend=False, row=1, col=3
        )
    drawing.update_xaxes(type="log", title_text="points on the path", tickvals=result.node_count.values, row=1, col=1)
    drawing.update_yaxes(type="log", title_text="relative gap, median image", row=1, col=1)
    drawing.update_xaxes(type="log", title_text="1 - probability of the class", row=1, col=2)
    drawing.update_yaxes(type="log", title_text="|sum| / |change of the probability|", row=1, col=2)
    drawing.update_yaxes(title_text="relative L1 difference of the maps", row=1, col=3)
    return drawing
