"""Losses that tell the other view of an example from other examples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError


class InfoNCE(NamedTuple):
    """The loss, and the lower bound on the mutual information that it gives, in nats."""

    loss: Tensor
    bound: Tensor


def ntxent(z1: Tensor, z2: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Normalized temperature-scaled cross-entropy of two views (Chen, Kornblith, Norouzi and Hinton, ICML 2020, eq. 1).

    With u = z / |z| of all 2N rows and p(i) the other view of i: the mean over all i of
    `-u_i.u_p(i) / tau + log sum_{k != i} exp(u_i.u_k / tau)`; the sum has 2N - 1 terms, the positive among them.

    Args:
        z1, z2: projections (N, d) of two views of the same N examples.
        temperature: tau.

    Returns:
        The loss, a scalar.

    Raises:
        InputError: matrices that differ in shape, or a temperature that is not positive.

    Examples:
        >>> pairs = torch.eye(3)
        >>> torch.allclose(ntxent(pairs, pairs, temperature=1.0), torch.tensor(1 + 4 / math.e).log())
        True
    """
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise InputError(f"both views need one shape (N, d), not {tuple(z1.shape)} and {tuple(z2.shape)}")
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, not {temperature}")
    n = len(z1)
    u = functional.normalize(torch.cat([z1, z2]), dim=1)
    place = torch.arange(2 * n, device=u.device)
    scores = (u @ u.T / temperature).masked_fill(place[:, None] == place, -torch.inf)
    return functional.cross_entropy(scores, (place + n) % (2 * n))


def infonce(scores: Tensor) -> InfoNCE:
    """The loss of picking every row's own column, and its bound (van den Oord, Li and Vinyals, 2018, eqs. 4 and 5).

    `L = -mean_i log(exp s_ii / sum_j exp s_ij)` over N candidates; the mutual information is at least `log N - L`.

    Args:
        scores: of anchors (rows) with candidates (columns), (N, N); the diagonal holds the positive ones.

    Raises:
        InputError: another shape.

    Examples:
        >>> found = infonce(torch.zeros(4, 4))
        >>> round(float(found.loss), 4), float(found.bound)
        (1.3863, 0.0)
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise InputError(f"scores must be a square matrix (N, N), not {tuple(scores.shape)}")
    n = len(scores)
    loss = functional.cross_entropy(scores, torch.arange(n, device=scores.device))
    return InfoNCE(loss, math.log(n) - loss)
