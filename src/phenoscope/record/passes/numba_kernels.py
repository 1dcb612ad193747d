"""The single pass on CPU, compiled by numba: one read of the weight and of its copy, one write of the copy.

Each kernel takes the filters [f0, f1) of one layer (counted over its groups) and fills, a filter each: the sum of
squared differences (float64), the number of entries and the number of channels that moved. Its scratch is a byte an
entry of one filter, or a channel: it stays in the cache, so that no temporary of the layer's size is made. The loops
are written for LLVM to vectorise; the one liberty it gets is to reorder the float64 sum.
"""

# numba infers the types of compiled functions
# mypy: disable-error-code="no-untyped-def, call-arg, call-overload"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload


def _jit(function: Callable[..., Any]) -> Any:
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep compiled code: every process compiles
        return numba.njit(**options)(function)


@intrinsic
def _float32_of(typingctx, bits):
    """Thirty-two bits read as a float32."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.float32(numba.uint32), codegen


def _widened(x):
    """An entry in the type in which differences are formed; half precision comes as its bits (see `overload` below)."""


@overload(_widened)
def _widened_by_type(x):
    """Floats are what they are; unsigned bits are a bfloat16, signed ones a float16."""
    if isinstance(x, numba.types.Float):
        return lambda x: x
    return _bfloat16 if x == numba.uint16 else _float16


def _bfloat16(x):
    return _float32_of(numba.uint32(x) << numba.uint32(16))


def _float16(x):
    """A half is a float32 with a shorter exponent: shift it into place, then scale by 2^112."""
    size = (numba.uint32(x) & numba.uint32(0x7FFF)) << numba.uint32(13)
    sign = (numba.uint32(x) & numba.uint32(0x8000)) << numba.uint32(16)
    if size >= numba.uint32(0x0F800000):  # infinity and NaN
        return _float32_of(size | numba.uint32(0x7F800000) | sign)
    value = _float32_of(size) * np.float32(2.0**112)
    return -value if sign else value


@_jit
def entries(w, p, tau, f0, f1, offset, n, c_count, k_count, sg, sf, sc, sk, distance, changed, moved):
    size = c_count * k_count
    contiguous = sc == k_count
    flags = np.empty(size, np.uint8)
    for f in range(f0, f1):
        at = offset + (f // n) * sg + (f % n) * sf
        total, count = 0.0, np.int64(0)
        runs, length = (1, size) if contiguous else (c_count, k_count)
        for r in range(runs):
            a, b, m = (
                w[at + r * sc : at + r * sc + length],
                p[at + r * sc : at + r * sc + length],
                flags[r * length :],
            )
            for j in range(length):
                d = _widened(a[j]) - _widened(b[j])
                b[j] = a[j]
                far = not (abs(d) <= tau)
                m[j] = far
                count += far
                total += np.float64(d) * np.float64(d)
        touched = np.int64(0)
        if count == size:
            touched = c_count
        elif count and k_count == 9:  # the common kernel, unrolled
            for c in range(c_count):
                q = flags[9 * c : 9 * c + 9]
                touched += q[0] | q[1] | q[2] | q[3] | q[4] | q[5] | q[6] | q[7] | q[8]
        elif count:
            for c in range(c_count):
                some = np.uint8(0)
                for k in range(k_count):
                    some |= flags[c * k_count + k]
                touched += some
        distance[f], changed[f], moved[f] = total, count, touched


@_jit
def channels(w, p, tau, f0, f1, offset, n, c_count, k_count, sg, sf, sc, sk, distance, changed, moved):
    flags = np.empty(c_count, np.uint8)
    for f in range(f0, f1):
        at = offset + (f // n) * sg + (f % n) * sf
        total, count = 0.0, np.int64(0)
        flags[:] = 0
        for k in range(k_count):
            a, b = w[at + k * sk : at + k * sk + c_count], p[at + k * sk : at + k * sk + c_count]
            for c in range(c_count):
                d = _widened(a[c]) - _widened(b[c])
                b[c] = a[c]
                far = not (abs(d) <= tau)
                flags[c] |= far
                count += far
                total += np.float64(d) * np.float64(d)
        some = np.int64(0)
        for c in range(c_count):
            some += flags[c]
        distance[f], changed[f], moved[f] = total, count, some


@_jit
def filters(w, p, tau, f0, f1, offset, n, c_count, k_count, sg, sf, sc, sk, distance, changed, moved):
    distance[f0:f1], changed[f0:f1], moved[f0:f1] = 0.0, 0, 0
    flags = np.empty(n, np.uint8)
    for g in range(f0 // n, (f1 + n - 1) // n):
        low, high = max(f0, g * n), min(f1, (g + 1) * n)
        length, first = high - low, low - g * n
        dist, count, some = distance[low:high], changed[low:high], moved[low:high]
        for c in range(c_count):
            flags[:length] = 0
            for k in range(k_count):
                at = offset + g * sg + c * sc + k * sk + first
                a, b = w[at : at + length], p[at : at + length]
                for f in range(length):
                    d = _widened(a[f]) - _widened(b[f])
                    b[f] = a[f]
                    far = not (abs(d) <= tau)
                    flags[f] |= far
                    count[f] += far
                    dist[f] += np.float64(d) * np.float64(d)
            for f in range(length):
                some[f] += flags[f]
