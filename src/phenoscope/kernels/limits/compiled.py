"""The step of an activation through a layer, on whole matrices of covariances in place, compiled for the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

_ALONE = 50_000  # entries below which threads cost more than they bring


def suits(tensor: Tensor) -> bool:
    """Whether the compiled steps take tensors of this device and dtype: CPU, float32 or float64."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def piecewise_step(nngp: Tensor, ntk: Tensor | None, q1: Tensor, q2: Tensor, *, slopes: tuple[float, float]) -> None:
    """nngp <- E f(u) f(v) and ntk <- ntk E f'(u) f'(v), in place, for an f that is linear on either side of zero.

    With c = nngp / sqrt(q1 q2), m the mean of the slopes and d half their difference, E f(u) f(v) = sqrt(q1 q2)
    (m^2 c + (2 d^2 / pi) (sqrt(1 - c^2) + c asin c)) and E f'(u) f'(v) = m^2 + (2 d^2 / pi) asin c (Cho and Saul,
    NeurIPS 2009, degrees 1 and 0). Where a variance is 0, c counts as 0. Rows are shared out among
    `torch.get_num_threads()` threads.

    Args:
        nngp: (S, A, B) covariances of u and v, contiguous (see `suits`); overwritten.
        ntk: (S, A, B) as well, or `None`; overwritten.
        q1: (S, A) variances of u.
        q2: (S, B) variances of v.
        slopes: below and above zero.

    Examples:
        >>> nngp, ntk = torch.ones(1, 1, 1), torch.ones(1, 1, 1)
        >>> piecewise_step(nngp, ntk, torch.ones(1, 1), torch.ones(1, 1), slopes=(0.0, 1.0))
        >>> nngp.item(), ntk.item()
        (0.5, 0.5)
    """
    from . import numba_steps

    below, above = slopes
    sides: list[Any] = []
    for q in (q1, q2):
        root = q.to(nngp.dtype).sqrt()
        sides += [root, torch.where(root > 0, 1 / root, 0.0)]
    even, odd = ((above + below) / 2) ** 2, ((above - below) / 2) ** 2 * 2 / math.pi
    _by_rows(numba_steps.piecewise, nngp, ntk, sides, (even, odd))


def erf_step(nngp: Tensor, ntk: Tensor | None, q1: Tensor, q2: Tensor) -> None:
    """nngp <- E erf(u) erf(v) and ntk <- ntk E erf'(u) erf'(v), in place.

    With c = 2 nngp / sqrt((1 + 2 q1) (1 + 2 q2)), they are (2 / pi) asin c and
    (4 / pi) / sqrt((1 + 2 q1) (1 + 2 q2) (1 - c^2)) (Williams, NeurIPS 1996).

    Args:
        nngp: (S, A, B) covariances of u and v, contiguous (see `suits`); overwritten.
        ntk: (S, A, B) as well, or `None`; overwritten.
        q1: (S, A) variances of u.
        q2: (S, B) variances of v.
    """
    from . import numba_steps

    sides: list[Any] = []
    for q in (q1.to(nngp.dtype), q2.to(nngp.dtype)):
        sides += [(2 * q / (1 + 2 * q)).sqrt(), (2 / (1 + 2 * q)).sqrt()]  # largest |c|, and covariance to c
    _by_rows(numba_steps.erf, nngp, ntk, sides, (2 / math.pi, 2 / math.pi))


def _by_rows(
    kernel: Callable[..., None], nngp: Tensor, ntk: Tensor | None, sides: list[Tensor], constants: tuple[float, float]
) -> None:
    from . import numba_steps

    count, rows, _ = nngp.shape
    k, t = (nngp.detach().view(nngp.shape).numpy(), nngp.detach().numpy() if ntk is None else ntk.detach().numpy())
    kind, table = k.dtype.type, numba_steps.TABLES[k.dtype.name]
    vectors = [each.detach().contiguous().numpy() for each in sides]

    def work(first: int, last: int) -> None:
        kernel(k, t, ntk is not None, *vectors, first, last, *(kind(each) for each in constants), table)

    share_out(work, count * rows, threads=torch.get_num_threads() if nngp.numel() > _ALONE else 1)


def share_out(work: Callable[[int, int], None], count: int, *, threads: int) -> None:
    """`work(first, last)` on ranges that cover 0 to `count`; it should let go of the interpreter's lock."""
    if threads < 2 or count < 2:
        work(0, count)
        return
    edges = [count * i // (4 * threads) for i in range(4 * threads + 1)]  # a slow thread leaves some to the others
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
