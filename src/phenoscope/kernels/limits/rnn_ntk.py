"""The tangent kernel of an infinitely wide recurrent network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...theory.gaussian.activations import activation
from .recurrent import Act, pair_moments, rnn_covariance
from .result import LimitKernels
from .tokens import stacked


def rnn_ntk(
    tokens: Tensor | Sequence[Tensor],
    *,
    act: Act = "erf",
    sigma_w2: float = 1.0,
    sigma_u2: float = 1.0,
    sigma_b2: float = 0.0,
    sigma_v2: float = 1.0,
    tied: bool = True,
) -> LimitKernels:
    """The kernels of an infinitely wide recurrent network read out at the last step, in the NTK parametrization.

    g_t = sqrt(sigma_w2 / n) W s_{t-1} + sqrt(sigma_u2 / d) U x_t + sqrt(sigma_b2) b, s_t = f(g_t), s_0 = 0, and the
    output is sqrt(sigma_v2 / n) v . s_T, all parameters first drawn from N(0, 1). With K the covariance of
    pre-activations (`rnn_nngp`) and P that of gradients with respect to them, P_TT' = sigma_v2 E f'(u) f'(v) at the
    last steps and P_ts = sigma_w2 P_{t+1, s+1} E f'(u) f'(v) before; gradients at different distances from the end are
    uncorrelated. Then

        NTK = sum of P_ts K_ts over pairs of steps (t, s) equally far from the end, + NNGP

    (Yang, "Scaling limits of wide neural networks with weight sharing", 2019). Of two sequences of one
    length the kernels do not depend on whether steps share their weights; of two lengths they do.

    Args:
        tokens: one sequence (T, d), several of one length (N, T, d), or a list of sequences (T, d) of any lengths.
        act: the activation f (`theory.activation`).
        sigma_w2, sigma_u2, sigma_b2, sigma_v2: variances of recurrent weights and input weights, times fan-in, of
            biases and of the readout.
        tied: `False` gives W, U and b of every step parameters of their own, the same for all sequences.

    Returns:
        Both kernels (N, N) for N sequences, float64, where the tokens are.

    Raises:
        InputError: sequences of unsuitable shapes, or negative variances.

    Examples:
        >>> rnn_ntk(torch.ones(1, 1, 3), act="linear").ntk.item()  # v U x: one part from U, one from v
        2.0
    """
    given, act = stacked(tokens), activation(act)
    k = rnn_covariance(given, act, sigma_w2, sigma_u2, sigma_b2, tied)
    slopes = pair_moments(act, k, derivative=True)
    last = given.last
    lengths = torch.tensor(given.lengths, device=k.device)
    nngp = sigma_v2 * pair_moments(act, k)[last[:, None], last]
    ntk, back = nngp.clone(), torch.full_like(nngp, sigma_v2)
    shared = torch.ones_like(nngp) if tied else (lengths[:, None] == lengths).to(nngp)
    for distance in range(max(given.lengths)):
        has = (lengths > distance).to(nngp)
        at = (last - distance).clamp_min(0)
        back = back * slopes[at[:, None], at] * has[:, None] * has
        ntk += shared * back * k[at[:, None], at]
        back = sigma_w2 * back
    return LimitKernels(nngp, ntk)
