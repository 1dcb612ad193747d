"""CNTK on CUDA: one Triton kernel that takes every displacement through all layers without leaving the registers.

A program is one warp. It holds a plane of one displacement modulo the image's size, (dy, dx), of a pair of images as H
rows of Sigma and H of Theta, one number a thread: the thread is the column, so that the filter's sum over rows is of a
thread's own registers and the one along a row takes two shuffles. Narrow images lie side by side in a warp, several
pairs at once. As on the CPU (`cntk_numba`), without circular padding up to four displacements meet in a plane at row
dy and column dx, and nothing is summed across these seams: no thread works for nothing.

Memory sees, of every row of every layer, the variances of both images: 8 bytes an entry, which the programs of a pair
find in the cache. Compiled for sm_90 and 32 x 32 images a thread takes 125 registers, nothing spills, 16 warps share a
multiprocessor, and the loop over layers has 1,609 instructions for 32 rows: 50 an entry, two of them square roots and
four shuffles. A warp takes 18 thousand instructions for 11 layers of a plane, and a pair has 1,024 planes; 132 x 4
schedulers at 1.75 GHz issue 0.92 T warp instructions a second, which is 50,000 pairs at best. Unmeasured: no GPU was at
hand.
"""

# Triton compiles no starred expression, and rows are a tuple that grows
# ruff: noqa: RUF005
# mypy: disable-error-code="no-untyped-def, assignment"

import triton
import triton.language as tl

WARP = 32


@triton.jit
def _power(p: tl.constexpr, z):
    return p[0] + z * (p[1] + z * (p[2] + z * (p[3] + z * (p[4] + z * (p[5] + z * p[6])))))


@triton.jit
def _step(sigma, theta, q1, q2, half, slope, arcsine: tl.constexpr, root_of: tl.constexpr, top: tl.constexpr):
    """k = (2 / q^2) E relu(u) relu(v) and g = theta (2 / q^2) E relu'(u) relu'(v) + k."""
    product = q1 * q2
    inverse = tl.rsqrt(tl.maximum(product, 1e-36))  # of a zero variance comes a correlation 0
    c = sigma * inverse
    size = tl.abs(c)
    size = tl.where(size > top, 1.0, size)
    near = size <= 0.5
    z = tl.where(near, size * size, 0.5 - 0.5 * size)
    root = tl.sqrt(z)
    arc, other = root * _power(arcsine, z - 0.125), _power(root_of, z - 0.125)
    arc = tl.where(near, arc, 1.5707963267948966 - 2 * arc)
    other = tl.where(near, other, 2 * root * other)
    arc = tl.where(c < 0, -arc, arc)
    kd = half + slope * arc
    k = product * inverse * (slope * other + tl.where(c < 0, -size, size) * kd)
    return k, theta * kd + k


@triton.jit
def _along(row, left, right, from_left, from_right):
    """The sum with both neighbours; those beyond an end or a seam count zero."""
    return row + from_left * tl.gather(row, left, 0) + from_right * tl.gather(row, right, 0)


@triton.jit
def _across(rows, dy, height: tl.constexpr, circular: tl.constexpr):
    """Every row's sum with the rows above and below, not across the seam before row dy unless circular."""
    found = ()
    for i in tl.static_range(height):
        total = rows[i]
        if circular:
            total += rows[(i + height - 1) % height] + rows[(i + 1) % height]
        else:
            if i > 0:
                total += (dy != i).to(tl.float32) * rows[i - 1]
            if i < height - 1:
                total += (dy != i + 1).to(tl.float32) * rows[i + 1]
        found = found + (total,)
    return found


@triton.jit
def sums(
    x1, q1, x2, q2, first, second, out, count, depth, channels, half, slope, height: tl.constexpr, width: tl.constexpr,
    circular: tl.constexpr, arcsine: tl.constexpr, root_of: tl.constexpr, top: tl.constexpr,
):  # fmt: skip
    """out[block, dy, thread] = the sum of Theta over rows and dx, of the thread's pair and column.

    The second images, and their variances, have every row twice: 0 to height - 1 and again.
    """
    dy, block, lane = tl.program_id(0), tl.program_id(1), tl.arange(0, 32)
    pairs: tl.constexpr = 32 // width
    place, j = lane // width, lane % width
    pair = block * pairs + place
    real = (place < pairs) & (pair < count)
    a, b = tl.load(first + pair, mask=real, other=0), tl.load(second + pair, mask=real, other=0)
    left, right = tl.where(j == 0, lane + (width - 1), lane - 1), tl.where(j == width - 1, lane - (width - 1), lane + 1)
    left, right = tl.minimum(left, 31), tl.minimum(right, 31)
    x1 += a * (channels * height * width) + j
    q1 += a * (depth * height * width) + j
    total = tl.zeros([32], tl.float32)
    for dx in range(width):
        j2 = tl.where(j < dx, j - dx + width, j - dx)
        # the second images' rows stand there twice: from row height - dy on, they are i - dy modulo the height
        others = x2 + b * (channels * 2 * height * width) + (height - dy) * width + j2
        variances = q2 + b * (depth * 2 * height * width) + (height - dy) * width + j2
        from_left, from_right = tl.full([32], 1.0, tl.float32), tl.full([32], 1.0, tl.float32)
        if not circular:
            from_left = ((j != 0) & (j != dx)).to(tl.float32)
            from_right = ((j != width - 1) & (j + 1 != dx)).to(tl.float32)
        products = ()
        for _ in tl.static_range(height):
            products = products + (tl.zeros([32], tl.float32),)
        here, there = x1, others
        for _ in range(channels):
            more = ()
            for i in tl.static_range(height):
                more = more + (products[i] + tl.load(here + i * width) * tl.load(there + i * width),)
            products = more
            here += height * width
            there += 2 * height * width
        rows = ()
        for i in tl.static_range(height):
            rows = rows + (_along(products[i], left, right, from_left, from_right),)
        sigma = _across(rows, dy, height, circular)
        theta = sigma
        here, there = q1, variances
        for _ in range(depth - 1):
            ks, gs = (), ()
            for i in tl.static_range(height):
                qa, qb = tl.load(here + i * width), tl.load(there + i * width)
                k, g = _step(sigma[i], theta[i], qa, qb, half, slope, arcsine, root_of, top)
                ks = ks + (_along(k, left, right, from_left, from_right),)
                gs = gs + (_along(g, left, right, from_left, from_right),)
            sigma, theta = _across(ks, dy, height, circular), _across(gs, dy, height, circular)
            here += height * width
            there += 2 * height * width
        for i in tl.static_range(height):
            qa, qb = tl.load(here + i * width), tl.load(there + i * width)
            k, g = _step(sigma[i], theta[i], qa, qb, half, slope, arcsine, root_of, top)
            total += g
    tl.store(out + (block * height + dy) * 32 + lane, total)
