"""How far full-batch descent on squared error has come along an eigenvector of the kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError

Times = float | Sequence[float] | Tensor


def squares_rate(loss: str, lr: float, *, n: int, outputs: int) -> float:
    """The rate on sum (f - y)^2 / 2 that a rate on another form of the squared error comes to.

    Raises:
        InputError: an unknown loss.
    """
    rates = {"half_sum": lr, "half_mean": lr / n, "mse": 2 * lr / (n * outputs)}
    if loss not in rates:
        raise InputError(f"loss must be one of {', '.join(rates)}, not {loss!r}")
    return rates[loss]


def checked_times(t: Times, *, flow: bool) -> Tensor:
    """(T,) times in float64.

    Raises:
        InputError: times that are negative or not finite or, without `flow`, not whole.
    """
    times = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
    if not torch.isfinite(times).all() or (times < 0).any() or (not flow and (times != times.round()).any()):
        raise InputError("times must be finite and not negative, and steps must be whole numbers")
    return times


def progress(values: Tensor, rate: float, times: Tensor, *, flow: bool) -> Tensor:
    """(1 - exp(-rate v t)) / v, or (1 - (1 - rate v)^t) / v, for every time (T) and eigenvalue (E)."""
    speed, times = rate * values, times[:, None]
    log_left = -speed * times if flow else times * torch.log1p(-speed.clamp_max(0.5))
    done = -torch.expm1(log_left)
    if not flow:
        done = torch.where(speed < 0.5, done, 1 - (1 - speed) ** times)
    small = values < values.max() * 1e-300 if values.numel() else values > 0
    small = small | (values == 0)
    return torch.where(small, rate * times, done / torch.where(small, torch.ones_like(values), values))
