"""The kernel of an infinitely wide recurrent network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import Activation, Function, activation
from ...theory.gaussian.moments import gaussian_moments
from .tokens import Tokens, stacked

Act = str | Function | Activation


def rnn_nngp(
    tokens: Tensor | Sequence[Tensor],
    *,
    act: Act = "erf",
    sigma_w2: float = 1.0,
    sigma_u2: float = 1.0,
    sigma_b2: float = 0.0,
    sigma_v2: float = 1.0,
    tied: bool = True,
) -> Tensor:
    """The kernel of an infinitely wide recurrent network, between any two moments of any two sequences.

    s_t = f(W s_{t-1} + U x_t + b), s_0 = 0, is read out at every step as v . s_t / sqrt(n); W ~ N(0, sigma_w2 / n),
    U ~ N(0, sigma_u2 / d), b ~ N(0, sigma_b2), v ~ N(0, sigma_v2). Because all steps share W, the covariance of
    pre-activations at steps t and s rests on that at t - 1 and s - 1: K_ts = sigma_w2 E f(u) f(v) + sigma_u2 x_t . x_s
    / d + sigma_b2 with (u, v) of covariance K_{t-1, s-1} (Yang, "Tensor Programs I", NeurIPS 2019).

    Args:
        tokens: one sequence (T, d), several of one length (N, T, d), or a list of sequences (T, d) of any lengths.
        act: the activation f (`theory.activation`).
        sigma_w2, sigma_u2, sigma_b2, sigma_v2: variances of recurrent weights and input weights, times fan-in, of
            biases and of the readout.
        tied: `False` draws W, U and b anew at every step, the same ones for all sequences: a deep network in which
            different steps have nothing in common.

    Returns:
        (n, n) for n tokens in all, in the order of the sequences; float64, where the tokens are.

    Raises:
        InputError: sequences of unsuitable shapes, or negative variances.

    Examples:
        >>> rnn_nngp(torch.ones(2, 3), act="linear", sigma_b2=0.5).tolist()  # s_1 = U x + b, s_2 = W s_1 + U x + b
        [[1.5, 1.5], [1.5, 3.0]]
    """
    covariance = rnn_covariance(stacked(tokens), activation(act), sigma_w2, sigma_u2, sigma_b2, tied)
    return sigma_v2 * pair_moments(activation(act), covariance)


def rnn_covariance(tokens: Tokens, act: Activation, w2: float, u2: float, b2: float, tied: bool) -> Tensor:
    """(n, n) covariances of pre-activations, along the diagonals (t, s), (t + 1, s + 1) ... each entry once."""
    if min(w2, u2, b2) < 0:
        raise InputError(f"variances must not be negative; they are {w2}, {u2} and {b2}")
    step, here = tokens.step, tokens.gram.device
    k = u2 * tokens.gram + b2
    if not tied:
        k = torch.where(step[:, None] == step, k, torch.zeros((), dtype=k.dtype, device=here))
    level = torch.minimum(step[:, None], step)
    for t in range(1, int(step.max()) + 1):  # variances first: pairs of one level need those of later steps
        at = (step == t).nonzero().flatten()
        k[at, at] += w2 * gaussian_moments(act, k[at - 1, at - 1], power=2)
    variance = k.diagonal().clone()
    follows = (level > 0).triu(1) if tied else ((level > 0) & (step[:, None] == step)).triu(1)
    for t in range(1, int(step.max()) + 1):
        i, j = (follows & (level == t)).nonzero(as_tuple=True)
        if not len(i):  # no two sequences last so long
            break
        q1, q2 = variance[i - 1], variance[j - 1]
        bound = (q1 * q2).sqrt()
        k[i, j] += w2 * gaussian_moments(act, q1, k[i - 1, j - 1].clamp(-bound, bound), q2)
        k[j, i] = k[i, j]
    return k


def pair_moments(act: Activation, k: Tensor, *, derivative: bool = False) -> Tensor:
    """E f(u) f(v), or of derivatives, for all pairs of variables of a covariance."""
    i, j = torch.triu_indices(len(k), len(k), device=k.device)
    q = k.diagonal()
    bound = (q[i] * q[j]).sqrt()
    result = torch.empty_like(k)
    result[i, j] = gaussian_moments(act, q[i], k[i, j].clamp(-bound, bound), q[j], derivative=derivative)
    result[j, i] = result[i, j]
    return result
