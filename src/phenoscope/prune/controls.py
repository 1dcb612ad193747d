"""What a lottery ticket must beat: its mask with other weights, its weights with another mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.random import seeded
from ..models.masks import Masks
from ..train.build import build
from .imp import Ticket


def reinit_control(
    ticket: Ticket, make_model: Callable[..., nn.Module], *, generator: torch.Generator | int | None = None
) -> Ticket:
    """The ticket's mask with weights drawn anew (Frankle and Carbin, ICLR 2019, "random reinitialization").

    Args:
        ticket: as `imp` finds it.
        make_model: makes a network of the ticket's architecture at its initialization; called through `train.build`.
        generator: what it is drawn from.

    Returns:
        An untrained ticket.

    Raises:
        InputError: a network of another architecture.
    """
    network = build(make_model, generator=generator)
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in ticket.init_state.items()}
    if shapes != {name: tuple(value.shape) for name, value in state.items()}:
        raise InputError("make_model makes a network of another architecture than the ticket's")
    state = {name: value.to(ticket.init_state[name].device) for name, value in state.items()}
    return Ticket(ticket.masks, state, ticket.density, ticket.seed)


def random_mask_control(ticket: Ticket, *, generator: torch.Generator | int | None = None) -> Ticket:
    """The ticket's initial weights with a random mask that keeps as many weights in every layer.

    Args:
        ticket: as `imp` finds it.
        generator: what the mask is drawn from.

    Returns:
        An untrained ticket.
    """
    return Ticket(shuffled(ticket.masks, generator=generator), ticket.init_state, ticket.density, ticket.seed)


def shuffled(masks: Mapping[str, Tensor], *, generator: torch.Generator | int | None = None) -> Masks:
    """Random masks that keep as many weights of every parameter."""
    generator = seeded(generator)
    drawn = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
        drawn[name] = mask.reshape(-1)[order].reshape(mask.shape)
    return Masks(drawn)
