"""Which modules hold the experts of a mixture in one weight, and how an expert's filters lie in it."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_COUNTS = ("num_experts", "num_local_experts", "n_experts", "n_routed_experts", "moe_num_experts")
_SIZES = ("hidden_size", "dim", "d_model", "input_size", "hidden_dim")
# Names of the projections into an expert's own width, and of the one back.
_IN = re.compile(r"gate|up|w1|w3|fc1|c_fc|wi|in_proj")
_OUT = re.compile(r"down|w2|fc2|c_proj|wo|out_proj")


def are_experts(module: nn.Module) -> bool:
    """Whether a module has weights (experts, ., .) of its own: by the number of experts it says, else by its class."""
    counts = {getattr(module, name, None) for name in _COUNTS} - {None}
    return any(
        weight is not None
        and not nn.parameter.is_lazy(weight)
        and weight.ndim == 3
        and (weight.shape[0] in counts or "expert" in type(module).__name__.lower())
        for weight in module._parameters.values()
    )


def expert_axes(module: Any, key: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Which axes of an expert weight (experts, ., .) count filters (outputs) and channels (inputs).

    What the module says (`is_transposed` of transformers) counts; else the axis as long as the network is wide shows
    it, if only one is; else outputs are taken to come first, as in `nn.Linear`.
    """
    said = getattr(module, "is_transposed", None)
    if isinstance(said, bool):
        return (2, 1) if said else (1, 2)
    if shape[1] == shape[2]:
        return 1, 2
    width = next((size for name in _SIZES if isinstance(size := getattr(module, name, None), int)), None)
    if width in shape[1:]:
        wide = shape.index(width, 1)
        if _IN.search(key):
            return 3 - wide, wide
        if _OUT.search(key):
            return wide, 3 - wide
    return 1, 2
