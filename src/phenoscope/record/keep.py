"""What a recorder keeps of the weights themselves: snapshots on a log-spaced schedule, and the final state."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .layers import Found, clean_name
from .sharded import is_sharded


def weights_of(model: nn.Module, found: list[Found]) -> dict[str, Tensor]:
    """Weight and bias of these layers, by name in the state dict."""
    parameters = {clean_name(name): p for name, p in model.named_parameters(remove_duplicate=False)}
    kept: dict[str, Tensor] = {}
    for each in found:
        kept[each.layer.parameter] = whole(each.weight)
        if each.layer.bias in parameters:
            kept[each.layer.bias] = whole(parameters[each.layer.bias])
    return kept


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The whole state dict, with clean names and without what is no tensor."""
    return {clean_name(name): whole(value) for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def next_snapshot(step: int, every: int) -> int:
    """The next step to keep weights at: multiples of `every`, ever further apart (by about half of the step)."""
    return every * max(step // every + 1, round(1.5 * step / every))


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if is_sharded(tensor) else tensor.detach()
