"""The two kernels of an infinitely wide fully connected network."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import Activation, Function, activation
from ...theory.gaussian.moments import gaussian_moments
from .result import LimitKernels


def mlp_kernels(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    act: str | Function | Activation = "relu",
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    last_bias: bool = True,
) -> LimitKernels:
    """The NNGP and tangent kernels of an infinitely wide network in the NTK parametrization, by recursion.

    Sigma = sigma_w2 x.x' / d + sigma_b2 and Theta = Sigma at the first layer; then, with (u, v) of covariance Sigma,
    Theta <- Theta sigma_w2 E f'(u) f'(v) + Sigma', Sigma' = sigma_w2 E f(u) f(v) + sigma_b2 (Jacot, Gabriel and
    Hongler, NeurIPS 2018, proposition 1 and theorem 1; Lee, Bahri, Novak et al., ICLR 2018). These are the limits for
    `models.mlp(parametrization="ntk")`; the NNGP kernel is also that of the standard parametrization.

    Args:
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        depth: number of hidden layers; 0 is a linear model.
        act: the activation (`theory.activation`).
        sigma_w2: variance of weights times fan-in.
        sigma_b2: variance of biases.
        last_bias: whether the last layer has a bias.

    Returns:
        Both kernels in float64, where the inputs are.

    Raises:
        InputError: a negative depth, or inputs of different sizes.
    """
    act = activation(act)
    if depth < 0:
        raise InputError(f"depth must not be negative, not {depth}")
    a = x1.reshape(len(x1), -1).double()
    b = a if x2 is None else x2.reshape(len(x2), -1).double()
    if a.shape[1] != b.shape[1]:
        raise InputError(f"the two sets of inputs have {a.shape[1]} and {b.shape[1]} features")

    def bias(layer: int) -> float:
        return sigma_b2 if last_bias or layer < depth else 0.0

    def first(left: Tensor, right: Tensor) -> Tensor:
        return sigma_w2 * (left * right).sum(-1) / a.shape[1] + bias(0)

    qa, qb = first(a, a), first(b, b)
    sigma = sigma_w2 * (a @ b.T) / a.shape[1] + bias(0)
    theta = sigma
    for layer in range(1, depth + 1):
        limit = torch.sqrt(qa[:, None] * qb)  # rounding must not carry a correlation beyond 1
        at = (qa[:, None], sigma.clamp(-limit, limit), qb[None, :])
        slope = sigma_w2 * gaussian_moments(act, *at, derivative=True)
        sigma = sigma_w2 * gaussian_moments(act, *at) + bias(layer)
        qa, qb = (sigma_w2 * gaussian_moments(act, q, power=2) + bias(layer) for q in (qa, qb))
        theta = theta * slope + sigma
    return LimitKernels(sigma, theta)
