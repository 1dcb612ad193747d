"""Measures of complexity from the noise that the weights bear: the PAC-Bayes and sharpness families."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .facts import Facts
from .pac_bayes import EPS

Measure = Callable[[Facts], float]


def _bound(facts: Facts, vector: Tensor, sigma: float) -> float:
    """||v||^2 / (4 sigma^2) + log(m / sigma): the divergence from a prior of the same spread around the origin of v."""
    return float(vector.square().sum()) / (4 * sigma**2) + math.log(facts.n / sigma)


def _relative_bound(facts: Facts, vector: Tensor, sigma: float) -> float:
    """1/4 sum_i log((eps^2 + (sigma^2 + 1) ||v||^2 / P) / (eps^2 + sigma^2 (w_i - w0_i)^2)) + log(m / sigma)."""
    moved = facts.vectors[1]
    spread = EPS**2 + (sigma**2 + 1) * vector.square().mean()
    return float((spread / (EPS**2 + sigma**2 * moved.square())).log().sum()) / 4 + math.log(facts.n / sigma)


def _as_noise(facts: Facts, alpha: float) -> float:
    """The spread at which, with P parameters, the largest of the normal numbers is about alpha."""
    return alpha / math.sqrt(math.log(2 * len(facts.vectors[0])))


FLATNESS: dict[str, Measure] = {
    "pacbayes-init": lambda facts: _bound(facts, facts.vectors[1], facts.sigma),
    "pacbayes-orig": lambda facts: _bound(facts, facts.vectors[0], facts.sigma),
    "pacbayes-flat": lambda facts: facts.sigma**-2,
    "pacbayes-mag-init": lambda facts: _relative_bound(facts, facts.vectors[1], facts.relative_sigma),
    "pacbayes-mag-orig": lambda facts: _relative_bound(facts, facts.vectors[0], facts.relative_sigma),
    "pacbayes-mag-flat": lambda facts: facts.relative_sigma**-2,
    "sharpness-init": lambda facts: _bound(facts, facts.vectors[1], _as_noise(facts, facts.alpha)),
    "sharpness-orig": lambda facts: _bound(facts, facts.vectors[0], _as_noise(facts, facts.alpha)),
    "sharpness-flat": lambda facts: facts.alpha**-2,
    "sharpness-mag-flat": lambda facts: facts.relative_alpha**-2,
}
