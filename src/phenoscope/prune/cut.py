"""Taking channels out of a copy of a network, and checking that the copy computes what it should."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core.errors import InputError
from .coupling import Example, Part, call


def copied(model: nn.Module) -> nn.Module:
    """A copy of its own.

    Raises:
        InputError: the network holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(f"the model cannot be copied: {error}") from error


def cut(model: nn.Module, parts: Iterable[Part]) -> nn.Module:
    """A copy of the network without these channels."""
    smaller = copied(model)
    trainable = {name: parameter.requires_grad for name, parameter in smaller.named_parameters()}
    going: dict[tuple[str, str], tuple[Any, set[int]]] = {}
    for part in parts:
        going.setdefault((part.module, part.side), (part.remove, set()))[1].update(part.indices)
    for (name, _), (remove, indices) in going.items():
        if name in trainable:
            _cut_parameter(smaller, name, remove, sorted(indices))
        else:
            remove(smaller.get_submodule(name), sorted(indices))
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(trainable[name])
    return smaller


def _cut_parameter(model: nn.Module, name: str, remove: Any, indices: list[int]) -> None:
    """The same for a free parameter, which has one axis of more than one entry."""
    *path, last = name.split(".")
    owner = model.get_submodule(".".join(path))
    parameter = getattr(owner, last)
    remove.__self__.pruning_dim = max(range(parameter.ndim), key=lambda axis: parameter.shape[axis])
    setattr(owner, last, remove(parameter, indices))


def agree(full: nn.Module, smaller: nn.Module, parts: Iterable[Part], example: Example) -> bool:
    """Whether the smaller network gives what the full one gives when the channels that were cut are zero on arrival.

    That is what removing them should mean. It fails where the network mixes or counts channels in a way that the
    dependency graph does not see: a shuffle, a maximum over channels, a reshape to a fixed size.

    Args:
        full, smaller: both in evaluation mode.
    """
    hooks = [
        full.get_submodule(part.module).register_forward_pre_hook(_masking(part.indices))
        for part in parts
        if part.side == "in"
    ]
    try:
        with torch.no_grad():
            given = _tensors(call(smaller, example))
            wanted = _tensors(call(full, example))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a shape that no longer fits shows itself in any module, as any error
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return len(wanted) == len(given) and all(map(_close, wanted, given))


def _masking(indices: list[int]) -> Any:
    """A hook that makes channels of a module's input zero."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = args
        axis = -1 if isinstance(module, nn.Linear) else -len(module.kernel_size) - 1  # type: ignore[arg-type]
        return x.index_fill(axis, torch.tensor(indices, device=x.device), 0), *rest

    return hook


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _close(wanted: Tensor, given: Tensor) -> bool:
    """Equal but for rounding: sums over fewer terms are ordered otherwise, and half precision rounds coarsely."""
    if wanted.shape != given.shape:
        return False
    if not wanted.is_floating_point():
        return True  # decisions may flip with rounding
    share = 0.1 if wanted.dtype in (torch.float16, torch.bfloat16) else 2e-3
    largest = wanted[wanted.isfinite()].abs().amax().item() if wanted.isfinite().any() else 0.0
    return torch.allclose(given.double(), wanted.double(), rtol=0, atol=share * largest, equal_nan=True)
