"""The first layer of a run at the moments at which its weights were kept."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...core.errors import InputError
from ..layers import Layer
from ..run import Run
from .palette import spread


def first_layer(run: Run) -> Layer:
    """The first layer in network order.

    Raises:
        InputError: the run kept no weights.
    """
    layer = next(iter(run.layers.values()), None)
    if layer is None or not run.snapshots:
        raise InputError(f"{run.path} kept no weights on the way; record with snapshots='first' or snapshots='all'")
    return layer


def weight_at(run: Run, layer: Layer, step: int) -> Tensor:
    """The layer's weight as (filters, channels, *entries)."""
    tensors = run.snapshot(step)
    if layer.parameter not in tensors:
        raise InputError(f"{run.path} kept no weight of {layer.name!r} at step {step}")
    return layer.blocks(tensors[layer.parameter].float()).flatten(0, 1)


def most_to_least(run: Run, layer: Layer, count: int) -> list[int]:
    """At most `count` filters, evenly spread between the one with the largest time-mean distance and the smallest."""
    if count < 1:
        raise InputError(f"filters must be at least 1, not {count}")
    if not run.means.sizes["step"]:
        return spread(range(len(layer)), count)
    distance = run.average(layer.name)["distance"].to_numpy()
    return spread([int(i) for i in np.argsort(-distance, kind="stable")], count)
