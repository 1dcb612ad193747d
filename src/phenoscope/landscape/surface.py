"""The loss on a line or plane through saved states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.random import seeded
from ..data.batches import Data
from .along import at_once, has_statistics, measured
from .products import Loss

if TYPE_CHECKING:
    import xarray

State = Mapping[str, Tensor]


def surface(
    model: nn.Module,
    states: Sequence[State],
    data: Data,
    *,
    random: int = 0,
    points: int = 25,
    margin: float = 0.25,
    reach: float = 1.0,
    loss_fn: Loss = functional.cross_entropy,
    refresh_bn: bool = True,
    train: Data | None = None,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Error and loss on a line or a plane in weight space, in evaluation mode.

    Two states span a line, three a plane, with axes at right angles as in Garipov, Izmailov, Podoprikhin, Vetrov and
    Wilson (NeurIPS 2018), and coordinates that are Euclidean distances from the first state. A random direction is
    normalized by filters (Li, Xu, Taylor, Studer and Goldstein, NeurIPS 2018): normal noise in which every filter has
    the norm of the first state's, and parameters of one dimension have none; its coordinates are multiples of that.

    Args:
        model: the architecture; left as it was found.
        states: one to three, as `state_dict` or `train.States` give them.
        random: directions drawn at random: one beside one or two states, or two around one. Directions between states
            and random ones make one axis or two together.
        points: along each axis.
        margin: how far an axis goes on beyond the states at either end, as a share of the distance between them.
        reach: how far a random axis goes to either side.
        data: what to measure on: a pair of tensors, or a loader that can be gone through again and again.
        loss_fn: from outputs and labels to their mean loss.
        refresh_bn: whether batch-norm statistics are recomputed at every point; otherwise they are the first state's.
        train: what to recompute them on, the training data; `data` if nothing is said.
        generator: what draws directions.

    Returns:
        `error` (NaN where labels are not classes) and `loss` over `x`, or over `y` and `x`; and over `state` where the
        states lie, `state_x` and `state_y`, and `state_error` and `state_loss` there.

    Raises:
        InputError: states that do not fit the model or each other, states that are equal or on one line, more or fewer
            than one or two axes, or fewer than two points.
    """
    import xarray

    count = len(states) - 1 + random
    if not 1 <= len(states) <= 3 or random < 0 or count not in (1, 2):
        raise InputError(
            f"{len(states)} states and {random} random directions make {max(count, 0)} axes: a line needs one, a plane "
            "two"
        )
    if points < 2:
        raise InputError(f"an axis needs at least 2 points, not {points}")
    names = [name for name, _ in model.named_parameters()]
    start, *others = (_parameters(model, state, names) for state in states)
    axes, places = _between(start, others)
    draw = seeded(generator)
    axes += [_filter_normalized(start, draw) for _ in range(random)]
    places = torch.cat([places, places.new_zeros(len(states), random)], 1)
    spans = [_span(places[:, axis], margin) if axis < len(others) else (-reach, reach) for axis in range(len(axes))]
    grids = [torch.linspace(*span, points, dtype=torch.float64) for span in spans]
    mesh = torch.cartesian_prod(*grids[::-1]).reshape(-1, len(axes)).flip(1)  # in the order of (y, x)
    buffers = {name: states[0][name].to(buffer) for name, buffer in model.named_buffers() if name in states[0]}
    refresh = (data if train is None else train) if refresh_bn and has_statistics(model) else None

    def along(where: Tensor) -> Iterator[dict[str, Tensor]]:
        for some in where.split(at_once(model)):
            moved = {name: _moved(value, [axis[name] for axis in axes], some) for name, value in start.items()}
            yield moved | {name: value.expand(len(some), *value.shape) for name, value in buffers.items()}

    found = measured(model, along(torch.cat([mesh, places])), [data], loss_fn=loss_fn, refresh=refresh)[:, 0]
    values, at_states = found[:, : len(mesh)].numpy(), found[:, len(mesh) :].numpy()
    letters = ("x", "y")[: len(axes)]
    out = xarray.Dataset(coords={letter: grid.numpy() for letter, grid in zip(letters, grids, strict=True)})
    for name, value, at_state in zip(("error", "loss"), values, at_states, strict=True):
        out[name] = letters[::-1], value.reshape([points] * len(axes))
        out[f"state_{name}"] = "state", at_state
    for axis, letter in enumerate(letters):
        out[f"state_{letter}"] = "state", places[:, axis].numpy()
    return out


def _parameters(model: nn.Module, state: State, names: Sequence[str]) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    for name in names:
        if name not in state or state[name].shape != own[name].shape:
            raise InputError(f"a state has no parameter {name!r} of the model's shape {tuple(own[name].shape)}")
    return {name: state[name].detach().to(own[name]) for name in names}


def _between(start: dict[str, Tensor], others: Sequence[dict[str, Tensor]]) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Axes of length 1 at right angles, and the places of all states on them, (states, axes), in double precision."""
    axes: list[dict[str, Tensor]] = []
    places = torch.zeros(1 + len(others), len(others), dtype=torch.float64)
    for number, other in enumerate(others, start=1):
        step = {name: other[name].double() - value.double() for name, value in start.items()}
        whole = _norm(step)
        for place, axis in enumerate(axes):
            shadow = sum(float((step[name] * axis[name]).sum()) for name in step)
            places[number, place] = shadow
            step = {name: value - shadow * axis[name] for name, value in step.items()}
        left = _norm(step)
        if left <= 1e-6 * max(whole, _norm(start)):
            raise InputError("the states are equal or lie on one line: they do not span the axes that were asked for")
        places[number, number - 1] = left
        axes.append({name: value / left for name, value in step.items()})
    return axes, places


def _norm(values: Mapping[str, Tensor]) -> float:
    return float(sum(float(value.double().square().sum()) for value in values.values()) ** 0.5)


def _filter_normalized(start: Mapping[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    found = {}
    for name, value in start.items():
        if value.ndim < 2:
            found[name] = torch.zeros_like(value, dtype=torch.float64)
            continue
        noise = torch.randn(value.shape, generator=draw, device=draw.device, dtype=torch.float64).to(value.device)
        sizes = (each.double().flatten(1).norm(dim=1) for each in (value, noise))
        wanted, drawn = (size.reshape(-1, *[1] * (value.ndim - 1)) for size in sizes)
        found[name] = noise * wanted / drawn
    return found


def _span(places: Tensor, margin: float) -> tuple[float, float]:
    low, high = float(places.min()), float(places.max())
    return low - margin * (high - low), high + margin * (high - low)


def _moved(value: Tensor, directions: Sequence[Tensor], where: Tensor) -> Tensor:
    """(points, ...): the value moved along directions by coordinates (points, axes)."""
    steps = sum(
        direction[None] * coordinate.to(direction.device).view(-1, *[1] * direction.ndim)
        for direction, coordinate in zip(directions, where.T, strict=True)
    )
    return (value.double()[None] + steps).to(value)
