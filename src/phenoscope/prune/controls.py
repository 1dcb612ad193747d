"""What a lottery ticket must beat: its mask with other weights, its weights with another mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.random import seeded
from ..models.masks import Masks
from ..train.build import build
from .imp import Ticket

Perturbation = Literal[
    "resign",
    "shuffle-layer",
    "shuffle-layer-signs-kept",
    "shuffle-filter",
    "shuffle-filter-signs-kept",
    "noise",
    "reinit",
    "reinit-same-sign",
    "init-magnitude",
    "init-sign",
]


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


def perturb_ticket(
    ticket: Ticket,
    kind: Perturbation,
    *,
    init_state: Mapping[str, Tensor] | None = None,
    make_model: Callable[..., nn.Module] | None = None,
    scale: float = 1.0,
    generator: torch.Generator | int | None = None,
) -> Ticket:
    """The ticket with its surviving weights disturbed (Frankle, Schwab and Morcos, ICLR 2020, section 5).

    With w the weights that the ticket's training starts from, usually those of an early step, w0 those of the
    initialization and u a fresh draw from its law, survivors become:

    - `"resign"`: |w| with signs by the toss of a coin.
    - `"shuffle-layer"`, `"shuffle-filter"`: the same values, permuted among the survivors of a layer, or of an output
      unit or filter; with `"-signs-kept"` magnitudes are permuted and signs stay in their places.
    - `"noise"`: w + N(0, (scale s)^2), with s the standard deviation of all of the layer's w0.
    - `"reinit"`: u; `"reinit-same-sign"`: |u| sign(w).
    - `"init-magnitude"`: |w0| sign(w); `"init-sign"`: |w| sign(w0).

    The mask, biases, norms and everything else stay as they are.

    Args:
        ticket: as `imp` finds it, or any masks with a state.
        kind: one of the above.
        init_state: the initialization, for `"noise"`, `"init-magnitude"` and `"init-sign"`.
        make_model: makes a network of the architecture at its initialization, for the two kinds of `"reinit"`.
        scale: of the noise.
        generator: what is drawn from.

    Returns:
        An untrained ticket.

    Raises:
        InputError: another kind, one that lacks what it needs, a negative scale, or another architecture.
    """
    if kind not in get_args(Perturbation):
        raise InputError(f"kind must be one of {', '.join(get_args(Perturbation))}, not {kind!r}")
    if kind in ("noise", "init-magnitude", "init-sign") and init_state is None:
        raise InputError(f"{kind!r} needs init_state=, the state of the network at its initialization")
    if scale < 0:
        raise InputError(f"scale must be at least 0, not {scale}")
    generator = seeded(generator)
    other: Mapping[str, Tensor] = init_state or {}
    if kind.startswith("reinit"):
        if make_model is None:
            raise InputError(f"{kind!r} needs make_model=, which makes a network at its initialization")
        other = reinit_control(ticket, make_model, generator=generator).init_state
    state = dict(ticket.init_state)
    for name, mask in ticket.masks.items():
        start = state[name]
        if other and (name not in other or other[name].shape != start.shape):
            raise InputError(f"init_state has no {name!r} of shape {tuple(start.shape)}")
        kept = mask.to(start.device).reshape(-1).nonzero()[:, 0]
        units = kept // (start[0].numel() or 1) if kind.startswith("shuffle-filter") else torch.zeros_like(kept)
        new = start.flatten().clone()
        new[kept] = _disturbed(kind, new[kept], other.get(name), kept, units, scale, generator)
        state[name] = new.reshape(start.shape)
    return Ticket(ticket.masks, state, ticket.density, ticket.seed)


def perturbation_size(ticket: Ticket, other: Ticket, *, init_state: Mapping[str, Tensor]) -> float:
    """How far another ticket starts from this one: the "effective standard deviation" of a perturbation.

    The standard deviation of (w' - w) / s over all surviving weights, with s the standard deviation of their layer at
    initialization (Frankle, Schwab and Morcos, ICLR 2020, section 5).

    Args:
        ticket: the one that was disturbed.
        other: as `perturb_ticket` makes it; or another state with the same masks.
        init_state: the state of the network at its initialization.

    Raises:
        InputError: other masks, masks that keep nothing, or a layer whose initial weights are all the same.
    """
    if ticket.masks != other.masks:
        raise InputError("the two tickets have different masks: a perturbation keeps them")
    moved = []
    for name, mask in ticket.masks.items():
        before, after = ticket.init_state[name].cpu().double(), other.init_state[name].cpu().double()
        spread = init_state[name].cpu().double().std(correction=0)
        if spread == 0:
            raise InputError(f"the initial weights of {name!r} are all the same: they have no spread to measure in")
        moved.append(((after - before) / spread)[mask.cpu()])
    values = torch.cat(moved)
    if not len(values):
        raise InputError("the masks keep nothing")
    return float(values.std(correction=0))


def _disturbed(
    kind: Perturbation,
    values: Tensor,
    other: Tensor | None,
    kept: Tensor,
    units: Tensor,
    scale: float,
    generator: torch.Generator,
) -> Tensor:
    """New values of one layer's survivors, which lie at `kept` and belong to `units`, between which none moves."""

    def drawn(make: Callable[..., Tensor]) -> Tensor:
        return make(len(values), generator=generator, device=generator.device).to(values.device)

    if kind.startswith("shuffle"):
        mixed = drawn(torch.randperm)
        moved = values[mixed[torch.argsort(units[mixed], stable=True)]]
        return torch.copysign(moved, values) if kind.endswith("signs-kept") else moved
    if kind == "resign":
        return torch.copysign(values, drawn(torch.rand).to(values.dtype) - 0.5)
    assert other is not None
    other = other.to(values)
    if kind == "noise":
        return values + scale * other.std(correction=0) * drawn(torch.randn).to(values.dtype)
    at = other.flatten()[kept]
    if kind == "reinit":
        return at
    magnitude, sign = (values, at) if kind == "init-sign" else (at, values)
    return torch.copysign(magnitude, sign)


def shuffled(masks: Mapping[str, Tensor], *, generator: torch.Generator | int | None = None) -> Masks:
    """Random masks that keep as many weights of every parameter."""
    generator = seeded(generator)
    drawn = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
        drawn[name] = mask.reshape(-1)[order].reshape(mask.shape)
    return Masks(drawn)
