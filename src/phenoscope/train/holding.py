"""Masks held while training: pruned weights stay at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import InputError

Masked = Mapping[str, Tensor]
_Each = TypeVar("_Each")


def checked_masks(masks: Masked, model: nn.Module) -> dict[str, Tensor]:
    """The masks on the device and in the dtype of the parameters they belong to.

    Raises:
        InputError: a name that no parameter has, or a mask of another shape.
    """
    parameters = dict(model.named_parameters())
    found = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise InputError(f"masks name {name!r}, which is no parameter of the model")
        parameter = parameters[name]
        if mask.shape != parameter.shape:
            raise InputError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}, the parameter {tuple(parameter.shape)}"
            )
        found[name] = mask.detach().to(parameter.device, parameter.dtype)
    return found


def stacked_masks(masks: Masked | Sequence[Masked | None], model: nn.Module, members: int) -> dict[str, Tensor]:
    """One mask a member, (members, ...) by parameter name; a member without a mask keeps all.

    Raises:
        InputError: as `checked_masks`, or another number of masks than members.
    """
    if isinstance(masks, Mapping):
        one = checked_masks(masks, model)
        return {name: mask.expand(members, *mask.shape) for name, mask in one.items()}
    each = [None if mask is None else checked_masks(mask, model) for mask in masks]
    if len(each) != members:
        raise InputError(f"there are {len(each)} masks for {members} members: give one a member, or one for all")
    parameters = dict(model.named_parameters())
    names = [name for name in parameters if any(mask is not None and name in mask for mask in each)]
    return {
        name: torch.stack([mask[name] if mask and name in mask else torch.ones_like(parameters[name]) for mask in each])
        for name in names
    }


class Held:
    """Masks of one network in training: on its weights at once, on gradients before and weights after each step."""

    def __init__(self, masks: Masked, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        self.pairs = [(parameters[name], mask) for name, mask in checked_masks(masks, model).items()]
        self.weights()

    def gradients(self) -> None:
        for parameter, mask in self.pairs:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def weights(self) -> None:
        for parameter, mask in self.pairs:
            parameter.mul_(mask)
