"""CNTK on CPU, compiled by numba: all layers of one displacement before the next, so that all stays in the cache.

The recursion never mixes displacements, (i - i', j - j'). A plane holds one of them modulo the image's size, (dy, dx),
for all pixels (i, j) of an image x and, next to each other for the processor's vectors, some images x' at once: H rows
of W * lanes entries. Without circular padding such a plane holds up to four displacements, dy and dy - H by dx and
dx - W, which meet at row dy and column dx: nothing is summed across these seams. Every entry is one of the (H W)^2 of
the pair.
"""

# numba infers the types of compiled functions
# mypy: disable-error-code="no-untyped-def, call-arg, misc"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .compiled import share_out
from .numba_steps import TABLES, arcsine_and_root, correlation, jit

if TYPE_CHECKING:
    from .cntk import Progress, Task, _Side

_REPORTS = 50
_PIXELS = 1024  # whose four planes of one vector a pixel stay in the cache


def kernel(one: _Side, two: _Side, task: Task, chunk: int | None, progress: Progress) -> Tensor:
    """(n1, n2) sums of Theta, of which only the upper triangle is filled in where both sides are the same."""
    n1, n2 = len(one.x), len(two.x)
    vector = 64 // one.x.element_size()
    lanes = vector * max(1, min(4, _PIXELS // one.x.shape[2:].numel(), -(-n2 // vector)))
    blocks = -(-n2 // lanes)
    # the second side's images innermost, in blocks: (blocks, ..., lanes)
    x2, q2 = (
        functional.pad(each.flatten(1).mT, (0, blocks * lanes - n2)).view(*each.shape[1:], blocks, lanes)
        .movedim(-2, 0).contiguous() for each in (two.x, two.q)
    )  # fmt: skip
    (root1, inverse1), (root2, inverse2) = (_roots(q) for q in (one.q, q2))
    units = [(a, b) for a in range(n1) for b in range(a // lanes if task.same else 0, blocks)]
    total, todo = torch.zeros(n1, blocks * lanes, dtype=torch.float64), np.array(units, np.int64).reshape(-1, 2)
    left: Any = (one.x.numpy(), root1, inverse1)
    kind, table = left[0].dtype.type, TABLES[left[0].dtype.name]
    right: Any = (x2.numpy(), root2, inverse2)
    constants = (kind(0.5 / task.filter**2), kind(1 / (math.pi * task.filter**2)))

    def work(first: int, last: int) -> None:
        sums(todo[first:last], *left, *right, total.numpy(), task.filter, task.circular, task.pooled, constants, table)

    threads, pairs = torch.get_num_threads(), n1 * (n1 + 1) // 2 if task.same else n1 * n2
    step = max(4 * threads, -(-len(units) // _REPORTS))
    for start in range(0, len(units), step):
        some = units[start : start + step]
        share_out(lambda first, last, start=start: work(start + first, start + last), len(some), threads=threads)
        progress(round(pairs * (start + len(some)) / len(units)), pairs)
    return total[:, :n2]


def _roots(q: Tensor) -> tuple[np.ndarray, np.ndarray]:
    root = q.sqrt()
    return root.numpy(), torch.where(root > 0, 1 / root, 0.0).numpy()


@jit
def sums(todo, x1, root1, inverse1, x2, root2, inverse2, total, side, circular, pooled, constants, table):
    """total[a, block] = the sum of Theta over pairs of pixels, or over equal pixels, for each (a, block) to do."""
    height, width, lanes = x2.shape[2], x2.shape[3], x2.shape[4]
    depth, margin, length = root1.shape[1], side // 2 * lanes, width * lanes
    sigma, theta = np.empty((height, length), x1.dtype), np.empty((height, length), x1.dtype)
    # a row, with room at its ends for what the filter reaches; planes that it is summed into, with a row of zeros
    k, g = np.zeros(length + 2 * margin, x1.dtype), np.zeros(length + 2 * margin, x1.dtype)
    ks, gs = np.zeros((height + 1, length), x1.dtype), np.zeros((height + 1, length), x1.dtype)
    root, inverse, plane_sum = np.empty(length, x1.dtype), np.empty(length, x1.dtype), np.empty(lanes, x1.dtype)
    middle = slice(margin, margin + length)
    for unit in range(len(todo)):
        a, block = todo[unit]
        into = total[a, block * lanes : (block + 1) * lanes]
        for dy in range(height if pooled else 1):
            for dx in range(width if pooled else 1):
                for i in range(height):
                    k[middle] = 0
                    for c in range(len(x1[a])):
                        _add_product(x1[a, c, i], x2[block, c, (i - dy) % height], dx, k[middle])
                    _along(k, ks[i], dx, lanes, margin, circular)
                _across(ks, sigma, dy, side // 2, circular)
                theta[:] = sigma
                plane_sum[:] = 0
                for layer in range(depth):
                    for i in range(height):
                        i2 = (i - dy) % height
                        _outer(root1[a, layer, i], root2[block, layer, i2], dx, root)
                        _outer(inverse1[a, layer, i], inverse2[block, layer, i2], dx, inverse)
                        _step(sigma[i], theta[i], root, inverse, k[middle], g[middle], constants, table)
                        if layer == depth - 1:
                            _add_columns(g[middle], plane_sum)
                        else:
                            _along(k, ks[i], dx, lanes, margin, circular)
                            _along(g, gs[i], dx, lanes, margin, circular)
                    if layer < depth - 1:
                        _across(ks, sigma, dy, side // 2, circular)
                        _across(gs, theta, dy, side // 2, circular)
                into += plane_sum  # in double precision


@jit
def _add_product(values, others, dx, out):
    """out[j] += x[j] x'[j - dx] of one row; j - dx wraps around."""
    width, lanes = others.shape
    for j in range(width):
        value, other, to = values[j], others[(j - dx) % width], out[j * lanes : (j + 1) * lanes]
        for lane in range(lanes):
            to[lane] += value * other[lane]


@jit
def _outer(values, others, dx, out):
    """out[j] = values[j] others[j - dx] of one row; j - dx wraps around."""
    width, lanes = others.shape
    for j in range(width):
        value, other, to = values[j], others[(j - dx) % width], out[j * lanes : (j + 1) * lanes]
        for lane in range(lanes):
            to[lane] = value * other[lane]


@jit
def _step(sigma, theta, root, inverse, k, g, constants, table):
    """k = (2 / q^2) E relu(u) relu(v) and g = theta (2 / q^2) E relu'(u) relu'(v) + k."""
    half, slope = constants
    for n in range(sigma.size):
        c = correlation(sigma[n] * inverse[n], table)
        arc, other = arcsine_and_root(c, table)
        kd = half + slope * arc
        value = root[n] * (slope * other + c * kd)
        k[n] = value
        g[n] = theta[n] * kd + value


@jit
def _along(row, out, dx, lanes, margin, circular):
    """The sum within the filter along a row, not across its ends or the seam before column dx unless circular."""
    length, reach = out.size, margin // lanes
    if circular:
        row[:margin] = row[length : length + margin]
        row[margin + length :] = row[margin : 2 * margin]
    if reach == 1:
        before, at, after = row[:length], row[lanes : length + lanes], row[2 * lanes :]
        for n in range(length):
            out[n] = before[n] + at[n] + after[n]
    else:
        _sum_of(row, out, 0, 2 * reach + 1, lanes)
    if dx and not circular:  # again, where the filter reaches over the seam
        for j in range(max(dx - reach, 0), min(dx + reach, length // lanes)):
            first, last = (j - reach, min(j + reach + 1, dx)) if j < dx else (max(j - reach, dx), j + reach + 1)
            _sum_of(row, out[j * lanes : (j + 1) * lanes], first + reach, last + reach, lanes)


@jit
def _sum_of(row, out, first, last, lanes):
    out[:] = 0
    for by in range(first, last):
        part = row[by * lanes : by * lanes + out.size]
        for n in range(out.size):
            out[n] += part[n]


@jit
def _across(rows, out, dy, reach, circular):
    """The sum within the filter over rows, not across the ends or the seam before row dy; the last row is zeros."""
    for i in range(len(out)):
        to = out[i]
        if reach == 1:
            before, at, after = rows[_row(rows, i, -1, dy, circular)], rows[i], rows[_row(rows, i, 1, dy, circular)]
            for n in range(to.size):
                to[n] = before[n] + at[n] + after[n]
        else:
            to[:] = 0
            for by in range(-reach, reach + 1):
                other = rows[_row(rows, i, by, dy, circular)]
                for n in range(to.size):
                    to[n] += other[n]


@jit
def _row(rows, i, by, dy, circular):
    """Row i + by, or the row of zeros where it lies beyond an end or the seam."""
    height, other = len(rows) - 1, i + by
    if circular:
        return other % height
    return other if 0 <= other < height and (other < dy) == (i < dy) else height


@jit
def _add_columns(row, total):
    for first in range(0, row.size, total.size):
        for lane in range(total.size):
            total[lane] += row[first + lane]
