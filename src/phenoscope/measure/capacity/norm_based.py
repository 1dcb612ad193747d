"""Measures of complexity from norms of the weights, of paths and from the margin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .facts import Facts

Measure = Callable[[Facts], float]


def _log_product(facts: Facts, norm: str) -> float:
    """log prod_l ||W_l||^2."""
    return float(np.log(facts.weights[norm]).sum())


def _mean_product(facts: Facts, norm: str, margin: float = 1.0) -> float:
    """d (prod_l ||W_l||^2 / gamma^2)^(1/d): what one layer contributes when all contribute the same."""
    layers = len(facts.weights[norm])
    return layers * float(np.exp((_log_product(facts, norm) - np.log(margin)) / layers))


def _bartlett(facts: Facts) -> float:
    """log of prod ||W_l||^2 / gamma^2 (sum (||(W_l - W0_l)^T||_{2,1} / ||W_l||)^(2/3))^3."""
    ratio = facts.moved["two_one"] / np.sqrt(facts.weights["spectral"])
    return _over_margin(facts, "spectral") + 3 * float(np.log((ratio ** (2 / 3)).sum()))


def _over_margin(facts: Facts, norm: str) -> float:
    return _log_product(facts, norm) - float(np.log(facts.margin))


def _ratio(facts: Facts, of: dict[str, np.ndarray]) -> float:
    return float((of["frobenius"] / facts.weights["spectral"]).sum())


SIZE: dict[str, Measure] = {
    "params": lambda facts: float(sum(value.numel() for value in facts.model.parameters())),
}
MARGIN: dict[str, Measure] = {
    "inverse-margin": lambda facts: 1 / facts.margin,
    "neg-entropy": lambda facts: -facts.entropy,
}
SPECTRAL: dict[str, Measure] = {
    "log-prod-spec": lambda facts: _log_product(facts, "spectral"),
    "log-prod-spec/margin": lambda facts: _over_margin(facts, "spectral"),
    "sum-spec": lambda facts: _mean_product(facts, "spectral"),
    "sum-spec/margin": lambda facts: _mean_product(facts, "spectral", facts.margin),
    "fro/spec": lambda facts: _ratio(facts, facts.weights),
    "log-spec-init": lambda facts: _over_margin(facts, "spectral") + np.log(_ratio(facts, facts.moved)),
    "log-spec-orig": lambda facts: _over_margin(facts, "spectral") + np.log(_ratio(facts, facts.weights)),
    "dist-spec": lambda facts: float(facts.moved["spectral"].sum()),
    "log-bartlett": _bartlett,
}
NORM: dict[str, Measure] = {
    "log-prod-fro": lambda facts: _log_product(facts, "frobenius"),
    "log-prod-fro/margin": lambda facts: _over_margin(facts, "frobenius"),
    "sum-fro": lambda facts: _mean_product(facts, "frobenius"),
    "sum-fro/margin": lambda facts: _mean_product(facts, "frobenius", facts.margin),
    "param-norm": lambda facts: float(facts.weights["frobenius"].sum()),
    "frob-dist": lambda facts: float(facts.moved["frobenius"].sum()),
}
PATH: dict[str, Measure] = {
    "path-norm": lambda facts: facts.path,
    "path-norm/margin": lambda facts: facts.path / facts.margin,
}
