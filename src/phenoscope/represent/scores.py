"""Scores of a batch of embeddings: have they collapsed, are pairs close, is the whole spread out."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Collapse:
    """How much of the unit sphere embeddings fill.

    Attributes:
        std_ratio: 1 if every coordinate spreads as on a uniform sphere, 0 if all embeddings are one.
        effective_rank: of their covariance, from 1 to the dimension.
        mean_cosine: of two different embeddings.
    """

    std_ratio: float
    effective_rank: float
    mean_cosine: float


@dataclasses.dataclass(frozen=True)
class AlignmentUniformity:
    """How close the embeddings of pairs lie, and how evenly all are spread; lower is better for both.

    Attributes:
        alignment: mean distance of the two of a pair, to a power.
        uniformity: logarithm of the mean Gaussian potential of two different embeddings.
    """

    alignment: float
    uniformity: float


def collapse(z: Tensor) -> Collapse:
    """Whether embeddings are still spread over the unit sphere, after Grill et al. (NeurIPS 2020) and others.

    With u = z / |z| in d dimensions: `std_ratio = sqrt(d) mean_j std(u_j)`; `effective_rank = exp(H)`, H the entropy
    of the eigenvalues of the covariance of u divided by their sum (Roy and Vetterli, 2007); `mean_cosine` over all
    pairs of different rows.

    Args:
        z: embeddings (N, d) of different examples, at least two.

    Raises:
        InputError: no such matrix.

    Examples:
        >>> collapse(torch.ones(8, 4)).std_ratio
        0.0
    """
    u = _unit(z)
    n, d = u.shape
    std = u.std(0, correction=0)
    centered = u - u.mean(0)
    eigenvalues = torch.linalg.eigvalsh(centered.T @ centered / n).clamp_min(0)
    total = eigenvalues.sum()
    # equal rows have no covariance but rounding errors: their rank is 1
    share = eigenvalues / total if total > 1e-14 else torch.eye(1, d, dtype=u.dtype, device=u.device)[0]
    rank = torch.special.entr(share).sum().exp()
    cosine = (u.sum(0).square().sum() - n) / (n * (n - 1))
    return Collapse(float(d**0.5 * std.mean()), float(rank), float(cosine))


def alignment_uniformity(z1: Tensor, z2: Tensor, *, alpha: float = 2.0, t: float = 2.0) -> AlignmentUniformity:
    """The two properties that contrastive losses trade off (Wang and Isola, ICML 2020, eqs. 8 and 9).

    On the unit sphere: `alignment = mean |u1 - u2|^alpha` over pairs, and `uniformity = log mean exp(-t |u - v|^2)`
    over two different rows, averaged over the two views.

    Args:
        z1, z2: embeddings (N, d) of two views of the same examples, at least two.
        alpha: power of the distance.
        t: sharpness of the potential.

    Raises:
        InputError: matrices that differ in shape.
    """
    if z1.shape != z2.shape:
        raise InputError(f"both views need one shape, not {tuple(z1.shape)} and {tuple(z2.shape)}")
    u1, u2 = _unit(z1), _unit(z2)
    alignment = (u1 - u2).norm(dim=1).pow(alpha).mean()
    uniformity = sum(torch.pdist(u).square().mul(-t).exp().mean().log() for u in (u1, u2)) / 2
    return AlignmentUniformity(float(alignment), float(uniformity))


def _unit(z: Tensor) -> Tensor:
    if z.ndim != 2 or len(z) < 2 or not z.is_floating_point():
        raise InputError(f"embeddings are a floating-point matrix (N, d) with N at least 2, not {tuple(z.shape)}")
    return functional.normalize(z.detach().double(), dim=1)
