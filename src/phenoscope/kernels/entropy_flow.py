"""Descent on cross-entropy in the space of functions, from many starts at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InputError

LOSSES = ("cross_entropy", "cross_entropy_sum")


def entropy_rate(loss: str, lr: float, *, n: int) -> float:
    """The rate on the sum over examples; torch's cross-entropy is their mean."""
    return lr / n if loss == "cross_entropy" else lr


def distributions(y: Tensor) -> Tensor:
    """Labels (n,) as one-hot rows; (n, C) probabilities as they are; float64.

    Raises:
        InputError: neither.
    """
    if y.ndim == 1 and not y.is_floating_point() and len(y) and int(y.min()) >= 0:
        return functional.one_hot(y.long()).double()
    if y.ndim != 2 or (y < 0).any() or not torch.allclose(y.double().sum(1), torch.ones(len(y)).to(y.device).double()):
        raise InputError("cross-entropy takes whole labels (n,), or (n, C) probabilities that sum to one")
    return y.double()


def entropy_weights(theta: Tensor, start: Tensor, y: Tensor, times: Tensor, *, rate: float, flow: bool) -> Tensor:
    """The integral a over time of rate (softmax f - y), where f = f_0 - Theta a on the training examples.

    That is, df/dt = -rate Theta (softmax f - y) (Lee, Xiao, Schoenholz et al., NeurIPS 2019, section 2.2), for every
    start on its own: by an explicit Runge-Kutta method of order 8 to a relative 1e-7, or step by step.

    Args:
        theta: (n, n).
        start: (n, D, C), f_0 of D starts.
        y: (n, C) probabilities.
        times: (T,), or numbers of steps.
        rate: of the sum over examples.
        flow: gradient flow, or discrete steps.

    Returns:
        (T, n, D, C).
    """

    def slope(weights: Tensor) -> Tensor:
        outputs = start - (theta @ weights.reshape(len(theta), -1)).view_as(start)
        return outputs.softmax(-1) - y[:, None]

    asked, place = torch.unique(times.cpu(), return_inverse=True)
    if flow:
        found = _integrated(slope, start, rate * asked)
    else:
        weights, kept, wanted = torch.zeros_like(start), [], set(asked.tolist())
        for step in range(int(asked[-1]) + 1):
            if step in wanted:
                kept.append(weights)
            weights = weights + rate * slope(weights)
        found = torch.stack(kept)
    return found[place.to(found.device)]


def _integrated(slope: Callable[[Tensor], Tensor], start: Tensor, times: Tensor) -> Tensor:
    from scipy.integrate import solve_ivp

    def flat(_: float, state: Any) -> Any:
        return slope(torch.from_numpy(state).to(start).view_as(start)).reshape(-1).cpu().numpy()

    end = float(times[-1])
    if end == 0:
        return torch.zeros_like(start)[None]
    solved = solve_ivp(
        flat, (0.0, end), torch.zeros(start.numel(), dtype=torch.float64).numpy(), method="DOP853",
        t_eval=times.clamp_max(end).numpy(), rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    if not solved.success:
        raise InputError(f"the flow of cross-entropy could not be integrated: {solved.message}")
    return torch.from_numpy(solved.y.T).to(start).view(len(times), *start.shape)
