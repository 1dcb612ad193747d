"""The updates of torch's optimizers on stacked parameters, with one learning rate and weight decay a member if wanted.

Every formula is the one that `torch.optim` documents for the optimizer of the same name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError

Rate = float | Tensor
State = dict[str, Tensor]
_REFUSED = ("maximize", "amsgrad", "differentiable")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an optimizer does with each parameter.

    Attributes:
        update: `update(parameter, gradient, state, settings, rate, decay, step)`, in place.
        settings: parameter name -> the settings of its group.
    """

    update: Callable[..., None]
    settings: dict[str, dict[str, Any]]


def read(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], model: nn.Module) -> Recipe:
    """What the optimizer made for this network would do.

    Raises:
        InputError: an optimizer instead of what makes one, one of another kind than SGD, Adam, AdamW and RMSprop, or
            one with a setting that a fleet cannot follow.
    """
    if isinstance(make, torch.optim.Optimizer) or not callable(make):
        raise InputError(
            "a fleet's optimizer is what makes one, such as functools.partial(torch.optim.SGD, lr=0.1), "
            f"not a {type(make).__name__}"
        )
    optimizer = make(model.parameters())
    kind = type(optimizer)
    if kind not in _UPDATES:
        known = ", ".join(each.__name__ for each in _UPDATES)
        raise InputError(f"a fleet trains with {known}, not {kind.__name__}: train the networks one by one with fit")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {}
    for group in optimizer.param_groups:
        for option in _REFUSED:
            if group.get(option):
                raise InputError(
                    f"a fleet's optimizer cannot have {option}=True: train the networks one by one with fit"
                )
        for parameter in group["params"]:
            settings[names[id(parameter)]] = {key: value for key, value in group.items() if key != "params"}
    return Recipe(_UPDATES[kind], settings)


def by_member(value: float | Sequence[float] | Tensor | None, members: int, name: str) -> float | Tensor | None:
    """A rate for all, or one a member (members,) in double precision.

    Raises:
        InputError: another number of values than members.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    values = torch.as_tensor(value, dtype=torch.float64).cpu()
    if values.ndim == 0:
        return values.item()
    if values.shape != (members,):
        raise InputError(
            f"{name} has shape {tuple(values.shape)}: give one value, or one for each of {members} members"
        )
    return values.item() if members == 1 else values


def shaped(rate: Rate, like: Tensor) -> Rate:
    """One rate a member, against the axes of a stacked parameter."""
    if not isinstance(rate, Tensor):
        return rate
    return rate.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


def _sgd(p: Tensor, g: Tensor, state: State, settings: dict[str, Any], rate: Rate, decay: Rate, step: int) -> None:
    g = _decayed(g, p, decay)
    momentum = settings["momentum"]
    if momentum:
        if step == 1:
            state["momentum"] = g.clone()
        else:
            state["momentum"].mul_(momentum).add_(g, alpha=1 - settings["dampening"])
        g = g.add(state["momentum"], alpha=momentum) if settings["nesterov"] else state["momentum"]
    _subtract(p, g, rate)


def _adam(p: Tensor, g: Tensor, state: State, settings: dict[str, Any], rate: Rate, decay: Rate, step: int) -> None:
    if settings.get("decoupled_weight_decay"):
        if isinstance(decay, Tensor) or decay:
            p.mul_(1 - rate * decay)
    else:
        g = _decayed(g, p, decay)
    first, second = settings["betas"]
    mean, square = _zeros(state, p, "mean"), _zeros(state, p, "square")
    mean.lerp_(g, 1 - first)
    square.mul_(second).addcmul_(g, g, value=1 - second)
    scale = square.sqrt().div_((1 - second**step) ** 0.5).add_(settings["eps"])
    _subtract(p, mean / scale, rate / (1 - first**step))


def _rmsprop(p: Tensor, g: Tensor, state: State, settings: dict[str, Any], rate: Rate, decay: Rate, step: int) -> None:
    g = _decayed(g, p, decay)
    alpha, momentum = settings["alpha"], settings["momentum"]
    square = _zeros(state, p, "square")
    square.mul_(alpha).addcmul_(g, g, value=1 - alpha)
    if settings["centered"]:
        mean = _zeros(state, p, "mean").lerp_(g, 1 - alpha)
        scale = square.addcmul(mean, mean, value=-1).sqrt_()
    else:
        scale = square.sqrt()
    g = g / scale.add_(settings["eps"])
    if momentum:
        g = _zeros(state, p, "momentum").mul_(momentum).add_(g)
    _subtract(p, g, rate)


def _zeros(state: State, p: Tensor, name: str) -> Tensor:
    if name not in state:
        state[name] = torch.zeros_like(p)
    return state[name]


def _decayed(g: Tensor, p: Tensor, decay: Rate) -> Tensor:
    if isinstance(decay, Tensor):
        return torch.addcmul(g, p, decay)
    return g.add(p, alpha=decay) if decay else g


def _subtract(p: Tensor, g: Tensor, rate: Rate) -> None:
    if isinstance(rate, Tensor):
        p.addcmul_(g, rate, value=-1)
    else:
        p.add_(g, alpha=-rate)


_UPDATES: dict[type, Callable[..., None]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}
