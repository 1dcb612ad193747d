"""What the paper found, and what a run of the demo shows beside it; nothing is said that was not measured."""

from __future__ import annotations

import math
import statistics
from typing import Any


def findings(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a finding: `paper`, `here` (a sentence) and `agrees` (True, False, or None where it cannot be said)."""
    vgg, resnet = runs["vgg16"], runs["resnet50"]
    return [_stratified(vgg), _residual(vgg, resnet), *_redundant(vgg), _least(vgg)]


def _stratified(vgg: dict[str, Any]) -> dict[str, Any]:
    rho = vgg["depth_correlation"]
    words = [
        f"{_direction(rho[key])} ({rho[key]:+.2f}) by {name}"
        for key, name in (
            ("changed", "changed share"),
            ("distance_per_weight", "distance per weight"),
            ("distance", "raw distance"),
        )
    ]
    falls = [rho[key] < -0.5 for key in ("changed", "distance_per_weight", "distance")]
    return {
        "paper": "filters of VGG's lower layers change more than those of its upper layers.",
        "here": "from the lowest to the highest of the five layers, movement " + ", ".join(words) + ".",
        "measured": rho,
        "agrees": True if all(falls) else False if not any(falls) else None,
    }


def _direction(rho: float) -> str:
    return "falls" if rho < -0.5 else "rises" if rho > 0.5 else "has no clear trend"


def _residual(vgg: dict[str, Any], resnet: dict[str, Any]) -> dict[str, Any]:
    spread = {name: _spread(run) for name, run in (("vgg16", vgg), ("resnet50", resnet))}
    known = all(math.isfinite(value) for value in spread.values())
    word = "less" if spread["resnet50"] < spread["vgg16"] else "more"
    return {
        "paper": "layers of ResNet are less stratified than those of VGG.",
        "here": f"the changed share of the five layers differs {word} in ResNet-50 than in VGG-16: standard deviation "
        f"of its logarithm {spread['resnet50']:.2f} against {spread['vgg16']:.2f}."
        if known
        else "the changed share of a layer is zero, so that its logarithm cannot be compared.",
        "measured": spread,
        "agrees": spread["resnet50"] < spread["vgg16"] if known else None,
    }


def _spread(run: dict[str, Any]) -> float:
    shares = [layer["changed"] for layer in run["layers"]]
    if min(shares) <= 0:
        return math.nan
    return statistics.pstdev(map(math.log, shares))


def _redundant(vgg: dict[str, Any]) -> list[dict[str, Any]]:
    every = vgg["redundant"]["layers"][-1]
    count, total = every["count"], every["filters"]
    exist = {
        "paper": "VGG has redundant filters, which stay idle while it trains.",
        "here": f"{count} of {total} filters of VGG-16 have a mean idle share of at least 0.95.",
        "measured": {"count": count, "filters": total},
        "agrees": count > 0,
    }
    free = {
        "paper": "zeroing them costs next to nothing.",
        "here": f"zeroing these {count} loses {100 * every['drop']:.2f} points of accuracy; as many random filters "
        f"lose {100 * every['random_mean']:.2f}{_interval(every)}."
        if count
        else "there are none to zero.",
        "measured": {key: every[key] for key in ("drop", "random_mean", "random_low", "random_high")},
        "agrees": every["drop"] < 0.005 if count else None,
    }
    return [exist, free]


def _interval(layer: dict[str, Any]) -> str:
    """Of the mean over random draws; one draw has none."""
    if not math.isfinite(layer["random_low"]):
        return ""
    return f" ({100 * layer['random_low']:.2f} to {100 * layer['random_high']:.2f})"


def _least(vgg: dict[str, Any]) -> dict[str, Any]:
    layers = vgg["least_evolved"]["layers"][:-1]
    here = sum(layer["drop"] for layer in layers) / len(layers)
    random = sum(layer["random_mean"] for layer in layers) / len(layers)
    return {
        "paper": "filters that evolved least can be spared.",
        "here": f"zeroing the least-evolved quarter of one layer loses {100 * here:.2f} points of accuracy on average "
        f"over the five layers, a random quarter {100 * random:.2f}.",
        "measured": {"least_evolved": here, "random": random},
        "agrees": here < random,
    }
