"""The step of an activation through a layer of covariances, compiled by numba, with an arcsine that can be vectorised.

A loop that calls the C library's arcsine once an entry cannot be; `arcsine` has the polynomials that do without.

The arcsine's slope is infinite at 1, so that rounding of 1e-16 in a correlation becomes 1e-8 in E f'(u) f'(v). What is
within 8 units of rounding of 1 therefore counts as 1 in `piecewise`: equal inputs come out as such, however their
kernel was rounded.
"""

# numba infers the types of compiled functions
# mypy: disable-error-code="no-untyped-def, call-arg"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from .arcsine import DEGREES, ROUNDING, polynomials


def jit(function: Callable[..., Any]) -> Any:
    """Compiled without the interpreter's lock; NaN and infinity keep their meaning."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep compiled code: every process compiles
        return numba.njit(**options)(function)


def _table(dtype: str) -> tuple[tuple[Any, ...], ...]:
    """The coefficients of P and of R, then constants, all of a dtype: a literal would widen single precision."""
    kind = np.dtype(dtype).type
    constants = (1.0, 0.5, math.pi / 2, ROUNDING * np.finfo(dtype).eps, 0.125)
    return tuple(tuple(kind(each) for each in some) for some in (*polynomials(dtype), constants))


TABLES = {dtype: _table(dtype) for dtype in DEGREES}


@jit
def _seven(a, b, c, d, e, f, g, z):
    return a + z * (b + z * (c + z * (d + z * (e + z * (f + z * g)))))


def _polynomial(p, z):
    """p[0] + p[1] z + ..., without a loop, so that the loop around it can be vectorised."""


@overload(_polynomial)
def _polynomial_by_degree(p, z):
    if len(p) == 7:
        return lambda p, z: _seven(p[0], p[1], p[2], p[3], p[4], p[5], p[6], z)
    return lambda p, z: (
        p[0]
        + z * _seven(p[1], p[2], p[3], p[4], p[5], p[6], p[7], z)
        + (z * z * z * z) * (z * z * z * z) * _seven(p[8], p[9], p[10], p[11], p[12], p[13], p[14], z)
    )


@jit
def arcsine_and_root(c, table):
    """asin(c) and sqrt(1 - c^2), |c| <= 1."""
    one, half, quarter_turn, _, middle = table[2]
    size = abs(c)
    near = size <= half
    z = c * c if near else (one - size) * half
    root = math.sqrt(z)
    arc, other = root * _polynomial(table[0], z - middle), _polynomial(table[1], z - middle)
    if not near:
        arc, other = quarter_turn - (arc + arc), (root + root) * other
    return (arc if c >= 0 else -arc), other


@jit
def correlation(c, table):
    """What is beyond 1, or as near as rounding, is 1."""
    one, _, _, least, _ = table[2]
    c = one if c > one - least else c
    return -one if c < least - one else c


@jit
def piecewise(nngp, ntk, with_ntk, root1, inverse1, root2, inverse2, first, last, even, odd, table):
    """Rows [first, last) of all matrices: nngp <- E f(u) f(v), ntk <- ntk E f'(u) f'(v).

    f has slopes m - d below and m + d above zero; `even` is m^2 and `odd` 2 d^2 / pi.
    """
    rows = nngp.shape[1]
    for row in range(first, last):
        s, a = row // rows, row % rows
        k, t, root, inverse = nngp[s, a], ntk[s, a], root2[s], inverse2[s]
        ra, ia = root1[s, a], inverse1[s, a]
        if with_ntk:
            for b in range(k.size):
                c = correlation(k[b] * ia * inverse[b], table)
                arc, other = arcsine_and_root(c, table)
                k[b] = ra * root[b] * (even * c + odd * (other + c * arc))
                t[b] *= even + odd * arc
        else:
            for b in range(k.size):
                c = correlation(k[b] * ia * inverse[b], table)
                arc, other = arcsine_and_root(c, table)
                k[b] = ra * root[b] * (even * c + odd * (other + c * arc))


@jit
def erf(nngp, ntk, with_ntk, most1, inverse1, most2, inverse2, first, last, scale, slope, table):
    """Rows [first, last) of all matrices; a correlation c is at most most1 most2, the covariance times both inverses.

    E erf(u) erf(v) = scale asin(c), and E erf'(u) erf'(v) = slope / sqrt(1 - c^2) times both inverses.
    """
    rows = nngp.shape[1]
    for row in range(first, last):
        s, a = row // rows, row % rows
        k, t, most, inverse = nngp[s, a], ntk[s, a], most2[s], inverse2[s]
        ma, ia = most1[s, a], inverse1[s, a]
        if with_ntk:
            for b in range(k.size):
                limit = ma * most[b]
                arc, other = arcsine_and_root(min(max(k[b] * ia * inverse[b], -limit), limit), table)
                k[b] = scale * arc
                t[b] *= slope * ia * inverse[b] / other
        else:
            for b in range(k.size):
                limit = ma * most[b]
                arc, other = arcsine_and_root(min(max(k[b] * ia * inverse[b], -limit), limit), table)
                k[b] = scale * arc
