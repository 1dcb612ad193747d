"""Measures of complexity that come from the way a network was trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core.errors import InputError
from ..gradients.noise import gradient_noise
from .facts import Facts

_CACHED_BYTES = 4 * 2**20  # gradients that stay in a CPU's caches are summed several times as fast


def steps_to(history: Any, level: float) -> float:
    """The first step at which the training loss was at most this; NaN if it never was, or without a history.

    Raises:
        InputError: a history that is no loss over `step`.
    """
    if history is None:
        return float("nan")
    losses = history["loss"] if hasattr(history, "data_vars") and "loss" in history else history
    if getattr(losses, "dims", None) != ("step",) or "step" not in losses.coords:
        raise InputError("history must be a loss over `step`, such as the history of train.fit")
    there = losses.step.values[losses.values <= level]
    return float(there[0]) if len(there) else float("nan")


def _noise(facts: Facts) -> float:
    each = sum(value.numel() * value.element_size() for value in facts.model.parameters())
    chunk = max(1, _CACHED_BYTES // each) if facts.data[0].device.type == "cpu" else None
    return gradient_noise(facts.model, facts.loss_fn, facts.data, chunk=chunk).trace


OPTIMIZATION: dict[str, Callable[[Facts], float]] = {
    "steps-to-first": lambda facts: steps_to(facts.history, facts.levels[0]),
    "steps-first-to-second": lambda facts: (
        steps_to(facts.history, facts.levels[1]) - steps_to(facts.history, facts.levels[0])
    ),
    "gradient-noise": _noise,
}
