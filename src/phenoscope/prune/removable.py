"""Which filters can be removed from a network for good, and which stay, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError
from ..core.guard import unchanged
from ..record.layers import find_layers, unwrap
from ..record.redundant import Filters, within
from .coupling import Coupling, Example, Part, call
from .cut import agree, copied, cut
from .plan import Plan, norms


@dataclasses.dataclass(frozen=True)
class Removable:
    """What of a choice of filters can be removed.

    Attributes:
        filters: what goes.
        kept: layer -> the indices that were chosen but stay, and why; only layers where there are such.
    """

    filters: Filters
    kept: Mapping[str, tuple[np.ndarray, str]]


def removable(model: nn.Module, filters: Mapping[str, Any], example: Example) -> Removable:
    """Which of the chosen filters `slim` can remove.

    Where additions, products, depthwise convolutions or the like tie channels of several layers together, a filter
    goes only if it is chosen in every layer whose output goes with it. The network's outputs stay, and at least one
    filter of every layer: the one with the largest L1 norm, summed over the layers tied together. Groups of a
    convolution stay of one size. Kept whole are attention heads, embeddings, weights that are shared or computed by a
    parametrization, channels that are normalized together with others (layer and group norm), and layers without
    which the network would not run on the example or would compute something else than with their channels at zero.

    Args:
        model: the network; left as it was found.
        filters: layer name -> indices of filters, as `record.redundant` gives.
        example: what the network is called with: a tensor, a tuple of arguments, or a dictionary of named ones.

    Raises:
        InputError: a layer that the network lacks, an index past its last filter, a network that does not run on the
            example, cannot be copied, or that torch-pruning cannot follow.
    """
    plan = planned(unwrap(model), filters, example)[0]
    return Removable(plan.filters, plan.kept)


def planned(model: nn.Module, filters: Mapping[str, Any], example: Example) -> tuple[Plan, nn.Module]:
    """What goes, and the network without it."""
    choice = within(model, filters)
    found = find_layers(model)[0]
    layers = {each.layer.name: each.layer for each in found}
    full = copied(model).eval()
    try:
        with torch.no_grad():
            call(full, example)
    except Exception as error:
        raise InputError(f"the model does not run on the example: {error}") from error
    if not agree(full, full, [], example):
        raise InputError("the model gives other outputs each time, so that a smaller one cannot be checked against it")
    weights = norms(layers, {each.layer.name: each.weight for each in found})
    plan = Plan(Coupling(full, example, layers), choice, weights)

    def attempt(parts: list[Part]) -> nn.Module | None:
        try:
            smaller = cut(model, parts)
        except (AssertionError, IndexError, RuntimeError, ValueError):  # torch-pruning met a shape that it cannot cut
            return None
        with unchanged(smaller):
            return smaller if agree(full, smaller.eval(), parts, example) else None

    smaller = attempt(plan.parts())
    if smaller is None:
        going: list[str] = []
        for name in [name for name, count in plan.filters.counts.items() if count]:
            if attempt(plan.parts([*going, name])) is not None:
                going.append(name)
            else:
                plan.keep_layer(name, "without them the network does not run, or computes something else")
        plan.settle()
        smaller = attempt(plan.parts())
    if smaller is None:
        raise InputError("these filters cannot be removed together; choose fewer layers with filters.only(names)")
    return plan, smaller
