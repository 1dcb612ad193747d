"""How large gradients are behind one layer, if its weights count as independent of themselves, and in truth."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import InputError
from ..gaussian.activations import Activation, Function, activation
from ..gaussian.moments import gaussian_moments

Number = float | Tensor


def backprop_moment(
    act: str | Function | Activation,
    sigma_w2: Number,
    square: Number = 1.0,
    *,
    readout: Literal["random", "mean"] = "random",
) -> Tensor:
    """The mean square of gradients with respect to the units below one random layer.

    Let h = W x with W ~ N(0, sigma_w2 / n) and x of mean square s, and L = v . f(h): the gradient is W^T (v f'(h)). If
    v is random, of mean zero and variance one, W^T acts as if drawn anew ("gradient independence"), and the mean
    square is sigma_w2 E f'(h)^2 with h ~ N(0, sigma_w2 s). If v = (1, ..., 1), the gradient has a part along x as well,
    because W is known to have made h:

        sigma_w2 E f'(h)^2 + (sigma_w2 E f''(h))^2 s,    E f''(h) = E[h f'(h)] / var h

    (Yang, "Scaling limits of wide neural networks with weight sharing", 2019; the second part is
    Gaussian conditioning and Stein's lemma). Odd activations have no such part.

    Args:
        act: the activation f (`theory.activation`).
        sigma_w2: variance of the weights times fan-in, positive.
        square: mean square s of the units below, positive.
        readout: "random" or "mean".

    Returns:
        A float64 tensor of the common shape of `sigma_w2` and `square`.

    Raises:
        InputError: another readout, or numbers that are not positive.

    Examples:
        >>> round(backprop_moment("relu", 2.0).item(), 4), round(backprop_moment("relu", 2.0, readout="mean").item(), 4)
        (1.0, 1.3183)
    """
    if readout not in ("random", "mean"):
        raise InputError(f'readout must be "random" or "mean", not {readout!r}')
    act = activation(act)
    w2, s = torch.broadcast_tensors(torch.as_tensor(sigma_w2).double(), torch.as_tensor(square).double())
    if not ((w2 > 0) & (s > 0) & w2.isfinite() & s.isfinite()).all():
        raise InputError("sigma_w2 and square must be positive")
    variance = w2 * s
    moment = w2 * gaussian_moments(act, variance, derivative=True, power=2)
    if readout == "random":
        return moment
    tilted = dataclasses.replace(act, function=lambda h: h * act.derivative(h), slopes=None, is_erf=False)
    curvature = gaussian_moments(tilted, variance) / variance
    return moment + (w2 * curvature) ** 2 * s
