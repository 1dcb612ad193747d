"""Which movement counts as a change: tau of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import InputError
from .evolution import check_threshold
from .layers import Found

Threshold = float | Mapping[str, float] | None


def thresholds(found: list[Found], threshold: Threshold, optimizer: Optimizer | None) -> list[float]:
    """Tau of each layer: what the user gave (a number, or by layer pattern), else its initial learning rate.

    Raises:
        InputError: no threshold can be derived (no optimizer, a rate of zero), or a pattern matches nothing.
    """
    if isinstance(threshold, Mapping):
        return _by_pattern(found, threshold, optimizer)
    if threshold is not None:
        check_threshold(threshold)
        return [float(threshold)] * len(found)
    rates = _initial_rates(optimizer)
    return [_rate_of(each, rates) for each in found]


def _by_pattern(found: list[Found], patterns: Mapping[str, float], optimizer: Optimizer | None) -> list[float]:
    used, chosen = set(), []
    rates = _initial_rates(optimizer) if optimizer is not None else {}
    for each in found:
        pattern = next((p for p in patterns if fnmatchcase(each.layer.name, p)), None)
        if pattern is not None:
            used.add(pattern)
            check_threshold(patterns[pattern])
            chosen.append(float(patterns[pattern]))
        else:
            chosen.append(_rate_of(each, rates))
    unused = [p for p in patterns if p not in used]
    if unused:
        raise InputError(
            f"threshold= names {unused[0]!r}, which matches no layer; layers are "
            f"{', '.join(each.layer.name for each in found[:5])} ..."
        )
    return chosen


def _initial_rates(optimizer: Optimizer | None) -> dict[int | None, float]:
    """Parameter -> the initial learning rate of its group; `None` -> that of parameters in no group."""
    if optimizer is None:
        raise InputError(
            "tau defaults to the initial learning rate, but there is no optimizer: pass threshold= "
            "(a number in units of the weights, or {layer pattern: number})"
        )
    rates: dict[int | None, float] = {}
    for group in optimizer.param_groups:
        rate = group.get("initial_lr", group.get("lr"))
        value = float(rate) if isinstance(rate, (int, float, Tensor)) else 0.0
        rates.update({id(parameter): value for parameter in group["params"]})
        rates.setdefault(None, value)
    return rates


def _rate_of(each: Found, rates: dict[Any, float]) -> float:
    rate = rates.get(id(each.weight), rates.get(None, 0.0))
    if not rate > 0:
        raise InputError(
            f"no threshold for layer {each.layer.name!r}: its initial learning rate is {rate:g} or unknown; "
            "pass threshold= (a number in units of the weights, or {layer pattern: number})"
        )
    return rate
