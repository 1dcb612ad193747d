"""The Cholesky factor of a Gram matrix, with as much added to its diagonal as it takes."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..core.errors import InputError

_FIRST = 1e-14  # of the mean diagonal: what is tried first where nothing was asked for and nothing does not do
_LAST = 0.1  # of the mean diagonal: what needs more is not off by rounding


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """K + jitter I = L L'.

    Attributes:
        lower: (n, n) whose lower triangle is L; what stands above the diagonal means nothing.
        jitter: what was added to the diagonal.
    """

    lower: Tensor
    jitter: float

    def solve(self, b: Tensor) -> Tensor:
        """(K + jitter I)^-1 b for `b` of shape (n, m)."""
        if self.lower.device.type != "cpu":
            return torch.cholesky_solve(b, self.lower)
        from scipy.linalg.lapack import dpotrs

        return torch.from_numpy(dpotrs(self.lower.numpy().T, b.numpy(), lower=0)[0])

    def half(self, b: Tensor) -> Tensor:
        """L^-1 b for `b` of shape (n, m): its squared columns are b' (K + jitter I)^-1 b."""
        if self.lower.device.type != "cpu":
            return torch.linalg.solve_triangular(self.lower, b, upper=False)
        from scipy.linalg.lapack import dtrtrs

        return torch.from_numpy(dtrtrs(self.lower.numpy().T, b.numpy(), lower=0, trans=1)[0])

    def logdet(self) -> float:
        """log det (K + jitter I)."""
        return 2 * float(self.lower.diagonal().log().sum())


def factor(k: Tensor, *, ridge: float = 0.0) -> Factor:
    """The Cholesky factor of K + jitter I in float64, in one copy of K.

    The jitter is first `ridge` times the mean of the diagonal, and ten times as much after every failure (Lee, Bahri,
    Novak et al., ICLR 2018, choose theirs so); where `ridge` is 0, it is first nothing, then 1e-14 of that mean.

    Args:
        k: (n, n), symmetric and positive semi-definite but for rounding.
        ridge: the least jitter, as a share of the mean diagonal.

    Raises:
        InputError: a matrix that is not square, finite, symmetric or nearly positive semi-definite, or a bad `ridge`.
    """
    check_gram(k)
    if not 0 <= ridge < math.inf:
        raise InputError(f"ridge must be a number from 0, not {ridge!r}")
    k = k.detach()
    mean = float(k.diagonal().double().mean())
    jitter = ridge * mean
    work = torch.empty(k.shape, dtype=torch.float64, device=k.device)
    while True:
        work.copy_(k)
        work.diagonal().add_(jitter)
        if (lower := _cholesky(work)) is not None:
            return Factor(lower, jitter)
        jitter = max(10 * jitter, _FIRST * mean)
        if not 0 < jitter <= _LAST * mean:
            raise InputError(
                f"the kernel matrix is not positive semi-definite: no jitter up to {max(ridge, _LAST):g} of its mean "
                "diagonal mends it"
            )


def check_gram(k: Tensor) -> None:
    """A Gram matrix: square, not empty, finite, symmetric.

    Raises:
        InputError: it is not.
    """
    if k.ndim != 2 or len(k) != k.shape[1] or not len(k):
        raise InputError(f"a kernel matrix of training examples must be square, not of shape {tuple(k.shape)}")
    # sums, because comparing elements would take another matrix
    down, across = k.sum(0, dtype=torch.float64), k.sum(1, dtype=torch.float64)
    if not torch.isfinite(down).all():
        raise InputError("the kernel matrix has entries that are not finite")
    size = len(k) * float(k.diagonal().abs().max())
    if float((down - across).abs().max()) > 1e-4 * size:
        raise InputError("the kernel matrix of training examples is not symmetric")


def _cholesky(work: Tensor) -> Tensor | None:
    """L in the lower triangle, in place on a CPU; `None` where there is none."""
    if work.device.type != "cpu":
        lower, failed = torch.linalg.cholesky_ex(work)
        return None if int(failed) else lower
    from scipy.linalg.lapack import dpotrf

    # the transpose of a matrix in rows is one in columns, which is what LAPACK overwrites without a copy
    _, failed = dpotrf(work.numpy().T, lower=0, clean=0, overwrite_a=1)
    return None if failed else work
