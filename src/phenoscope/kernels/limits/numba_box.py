"""A convolution's sum over taps on the kernels of every pair of positions, compiled by numba."""

# numba infers the types of compiled functions
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from .numba_steps import jit


@jit
def _seen(offset, stride, side, out):
    """Which output positions, from and up to, have an input at `stride * position + offset`."""
    low = 0 if offset >= 0 else (-offset + stride - 1) // stride
    high = 0 if side - 1 < offset else (side - 1 - offset) // stride + 1
    return low, max(low, min(out, high))


@jit
def _tall_sums(x, i, p, size, stride, dilation, before, tall, sums):
    """sums[w, j, p', w'] <- sum over the taps along the height, for the rows p of an output and all widths w."""
    height, width, columns = x.shape[1], x.shape[2], x.shape[3]
    sums[:] = 0
    for a in range(size[0]):
        offset = a * dilation[0] - before[0]
        h = p * stride[0] + offset
        if 0 <= h < height:
            low, high = _seen(offset, stride[0], height, tall)
            for w in range(width):
                for j in range(columns):
                    if stride[0] == 1:  # what is seen lies in one piece
                        source = x[i, h, w, j].ravel()[(low + offset) * width : (high + offset) * width]
                        target = sums[w, j].ravel()[low * width : high * width]
                        for e in range(target.size):  # from 0: an index that might be negative is not vectorised
                            target[e] += source[e]
                    else:
                        for pp in range(low, high):
                            source, target = x[i, h, w, j, pp * stride[0] + offset], sums[w, j, pp]
                            for e in range(width):
                                target[e] += source[e]


@jit
def _masks(columns, tall, width, taps, dilation, before, kind):
    """For every tap along the width, 1 where an output position has an input, else 0; laid out as the sums' rows."""
    masks = np.zeros((taps, columns, tall, width), kind)
    for b in range(taps):
        low, high = _seen(b * dilation - before, 1, width, width)
        masks[b, :, :, low:high] = 1
    return masks.reshape(taps, -1)


@jit
def box(x, out, plus, with_plus, first, last, size, stride, dilation, before, scale, shift):
    """out <- scale sum over taps of x at both examples' positions shifted together + shift [+ plus].

    x is (n1, H, W, n2, H, W) and out (n1, P, Q, n2, P, Q); rows [first, last) of n1 P are done. The taps along the
    height are summed first, for all positions along the width, in a buffer that the cache holds.
    """
    width, columns = x.shape[2], x.shape[3]
    tall, wide = out.shape[1], out.shape[2]
    sums = np.empty((width, columns, tall, width), x.dtype)
    flat = sums.reshape(width, -1)
    same = stride[1] == 1 and wide == width  # then a shift along the width is one along the whole row, but for its ends
    masks = _masks(columns, tall, width, size[1] if same else 0, dilation[1], before[1], x.dtype)
    total = np.empty(columns * tall * wide, x.dtype)
    for row in range(first, last):
        i, p = row // tall, row % tall
        _tall_sums(x, i, p, size, stride, dilation, before, tall, sums)
        for q in range(wide):
            total[:] = 0
            for b in range(size[1]):
                offset = b * dilation[1] - before[1]
                w = q * stride[1] + offset
                if w < 0 or w >= width:
                    continue
                if same:
                    low, high = max(0, -offset), total.size - max(0, offset)
                    source, mask, target = flat[w, low + offset : high + offset], masks[b, low:high], total[low:high]
                    for e in range(target.size):
                        target[e] += source[e] * mask[e]
                else:
                    low, high = _seen(offset, stride[1], width, wide)
                    for each in range(columns * tall):
                        for e in range(low, high):
                            total[each * wide + e] += flat[w, each * width + e * stride[1] + offset]
            target = out[i, p, q].ravel()
            if with_plus:
                other = plus[i, p, q].ravel()
                for e in range(total.size):
                    target[e] = scale * total[e] + shift + other[e]
            else:
                for e in range(total.size):
                    target[e] = scale * total[e] + shift
