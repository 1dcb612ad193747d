"""Products of a function of two Gaussian variables as a power series in their correlation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .activations import Activation
from .quadrature import panels

DEGREES = (32, 64, 128, 256, 512)
_REACH = 12.0  # h_k(z) times the density is below exp(-z^2 / 4): 2e-16 here
_LONGEST = 20.0  # standard deviations of u beyond which the function is no longer resolved
_EXACT = 1e-11  # of the product of the two root mean squares
_BLOCK = 2**16  # pairs at once: they stay in the cache while all powers are added up
_TAIL = 64  # coefficients that tell of those not computed
_FEW = 256  # variances at once


def series(act: Activation, q1: Tensor, q2: Tensor, c: Tensor, *, derivative: bool) -> tuple[Tensor, Tensor]:
    """E f(u) f(v) = sum_k a_k(q1) a_k(q2) c^k, a_k(q) = E f(sqrt(q) z) h_k(z) with normalized Hermite polynomials h_k.

    Mehler's formula (1866). What the powers beyond the last one leave out is at most |c|^(K + 1) times the root of the
    product of what the two functions have there, E f^2 - sum_k a_k^2; it is known, so that it can be told where the
    series may be trusted.

    Args:
        act: the activation, or with `derivative` its derivative, is f.
        q1, q2: variances of u and v, of shapes that broadcast with c.
        c: (n1, ...) correlations.

    Returns:
        The series, and where it is exact to about 1e-11 of sqrt(E f(u)^2 E f(v)^2); both of the common shape.
    """
    shape = torch.broadcast_shapes(q1.shape, q2.shape, c.shape, (1,))
    one = q2 is q1
    q1, q2, c = (part.reshape((1,) * (len(shape) - part.ndim) + part.shape) for part in (q1, q2, c))
    a, rest_a = _coefficients(act, q1, derivative)
    b, rest_b = (a, rest_a) if one else _coefficients(act, q2, derivative)
    degree = _enough(rest_a, rest_b, float(c.abs().max()) if c.numel() else 0.0)
    beyond = (rest[..., DEGREES.index(degree)].expand(shape) for rest in (rest_a, rest_b))
    trusted = c.abs() ** (degree + 1) * math.prod(beyond) <= _EXACT
    a, b, c = a.expand(*shape, -1), b.expand(*shape, -1), c.expand(shape)
    total = torch.empty(shape, dtype=c.dtype, device=c.device)
    rows = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        at = slice(start, start + rows)
        sums = a[at, ..., degree] * b[at, ..., degree]
        for power in range(degree - 1, -1, -1):
            sums.mul_(c[at]).addcmul_(a[at, ..., power], b[at, ..., power])
        total[at] = sums
    return total, trusted


def _enough(rest_a: Tensor, rest_b: Tensor, largest: float) -> int:
    """The lowest degree that serves all pairs, or the highest one."""
    for place, degree in enumerate(DEGREES):
        if float(rest_a[..., place].max() * rest_b[..., place].max()) * largest ** (degree + 1) <= _EXACT:
            return degree
    return DEGREES[-1]


def _coefficients(act: Activation, q: Tensor, derivative: bool) -> tuple[Tensor, Tensor]:
    """(..., K + 1) coefficients, and (..., degrees) the share of the root mean square that is beyond each degree."""
    values, place = q.reshape(-1).unique(return_inverse=True)
    found = [_of_few(act, some, derivative) for some in values.split(_FEW)]
    coefficients, rest = (torch.cat(parts)[place].view(*q.shape, -1) for parts in zip(*found, strict=True))
    return coefficients, rest


def _of_few(act: Activation, q: Tensor, derivative: bool) -> tuple[Tensor, Tensor]:
    root = q.sqrt()[:, None]
    scale = root if act.kinks else root[:1]  # smooth functions share their nodes
    kinks = torch.tensor(act.kinks).to(q).expand(len(scale), -1)
    width = 2.5 / max(10.0, float(root.clamp_max(_LONGEST).max()))
    z, weight = panels(scale, torch.zeros_like(scale), kinks, width=width, nodes=16, reach=_REACH)
    values = (act.derivative if derivative else act.function)(root * z)
    total, values = (values**2 * weight).sum(1), values * weight
    found = _project(values, z)
    squares = found**2
    last = total - squares.sum(1)
    last = torch.where(last > 1e-13 * total, last, squares[:, -_TAIL:].sum(1))  # below that, the sum's own rounding
    beyond = squares.flip(1).cumsum(1).flip(1)[:, [degree + 1 for degree in DEGREES[:-1]]] + last[:, None]
    share = (torch.cat([beyond, last[:, None]], 1) / total.clamp_min(1e-300)[:, None]).sqrt()
    share[(root[:, 0] > _LONGEST) | ~torch.isfinite(total)] = math.inf
    return found, share


def _project(values: Tensor, z: Tensor) -> Tensor:
    """Sums with the normalized Hermite polynomials at the nodes z, E h_j h_k = 1 if j = k, else 0."""
    before, at, columns = torch.zeros_like(z), torch.ones_like(z), []
    for k in range(DEGREES[-1] + 1):
        columns.append((values * at).sum(1) if len(z) > 1 else values @ at[0])
        before, at = at, (z * at - math.sqrt(k) * before) / math.sqrt(k + 1)
    return torch.stack(columns, 1)
