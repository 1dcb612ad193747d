"""The single pass on CUDA: one Triton launch for all layers, which finds each layer through a table of pointers.

A program takes one filter, or a tile of small ones, and reads its layer's row of the table: address of the weight and
of its copy, lengths, steps, and the form that suits the layer's order of memory (`Layout.order`).
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

FIELDS = 12  # weight, copy, filters of a group, filters, channels, entries, sg, sf, sc, sk, first result, form
NARROW, MEDIUM, WIDE_ROWS, ENTRIES, FILTERS = range(5)
NARROW_CHANNELS, MEDIUM_CHANNELS = 64, 256
TILE = 1024
BAND = 128  # filters of a program in form FILTERS


@triton.jit
def _step(w, p, at, keep, tau, wide: tl.constexpr):
    """Read, compare, update: the difference in the wide type, and which entries moved (NaN has moved)."""
    after = tl.load(w + at, mask=keep, other=0.0)
    before = tl.load(p + at, mask=keep, other=0.0)
    tl.store(p + at, after, mask=keep)
    difference = after.to(wide) - before.to(wide)
    moved = (tl.abs(difference) <= tau) == 0
    return difference.to(tl.float64), moved & keep


@triton.jit
def _rows(
    w,
    p,
    tau,
    first,
    n,
    total,
    channels,
    entries,
    sg,
    sf,
    sc,
    sk,
    out,
    distance,
    changed,
    moved,
    wide: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """Channels run fastest: a tile of whole rows of channels, of one entry after the other."""
    filters = first + tl.arange(0, tile // width)
    real = filters < total
    row = (filters // n) * sg + (filters % n) * sf
    square = tl.zeros([tile // width, width], tl.float64)
    count = tl.zeros([tile // width, width], tl.int32)
    channel_count = tl.zeros([tile // width, width], tl.int32)
    for c in range(0, channels, width):
        column = c + tl.arange(0, width)
        keep = real[:, None] & (column < channels)[None, :]
        some = tl.zeros([tile // width, width], tl.int32)
        for k in range(entries):
            at = row[:, None] + column[None, :] * sc + k * sk
            difference, far = _step(w, p, at, keep, tau, wide)
            square += difference * difference
            count += far.to(tl.int32)
            some |= far.to(tl.int32)
        channel_count += some
    tl.store(distance + out + filters, tl.sum(square, 1), mask=real)
    tl.store(changed + out + filters, tl.sum(count, 1), mask=real)
    tl.store(moved + out + filters, tl.sum(channel_count, 1), mask=real)


@triton.jit
def _entries(
    w,
    p,
    tau,
    f,
    n,
    channels,
    entries,
    sg,
    sf,
    sc,
    sk,
    out,
    distance,
    changed,
    moved,
    wide: tl.constexpr,
    tile: tl.constexpr,
):
    """Entries run fastest: one filter, tiles of channels by 16 entries."""
    base = (f // n) * sg + (f % n) * sf
    square = tl.zeros([tile // 16, 16], tl.float64)
    count = tl.zeros([tile // 16, 16], tl.int32)
    channel_count = tl.zeros([tile // 16], tl.int32)
    for c in range(0, channels, tile // 16):
        channel = c + tl.arange(0, tile // 16)
        some = tl.zeros([tile // 16, 16], tl.int32)
        for k in range(0, entries, 16):
            entry = k + tl.arange(0, 16)
            keep = (channel < channels)[:, None] & (entry < entries)[None, :]
            at = base + channel[:, None] * sc + entry[None, :] * sk
            difference, far = _step(w, p, at, keep, tau, wide)
            square += difference * difference
            count += far.to(tl.int32)
            some |= far.to(tl.int32)
        channel_count += tl.max(some, 1)
    tl.store(distance + out + f, tl.sum(tl.sum(square, 1), 0))
    tl.store(changed + out + f, tl.sum(tl.sum(count, 1), 0))
    tl.store(moved + out + f, tl.sum(channel_count, 0))


@triton.jit
def _filters(
    w,
    p,
    tau,
    first,
    n,
    total,
    channels,
    entries,
    sg,
    sf,
    sc,
    sk,
    out,
    distance,
    changed,
    moved,
    wide: tl.constexpr,
    band: tl.constexpr,
):
    """Filters run fastest: a band of filters, channel after channel."""
    filters = first + tl.arange(0, band)
    real = filters < total
    base = (filters // n) * sg + (filters % n) * sf
    square = tl.zeros([band], tl.float64)
    count = tl.zeros([band], tl.int32)
    channel_count = tl.zeros([band], tl.int32)
    for c in range(channels):
        some = tl.zeros([band], tl.int32)
        for k in range(entries):
            difference, far = _step(w, p, base + c * sc + k * sk, real, tau, wide)
            square += difference * difference
            count += far.to(tl.int32)
            some |= far.to(tl.int32)
        channel_count += some
    tl.store(distance + out + filters, square, mask=real)
    tl.store(changed + out + filters, count, mask=real)
    tl.store(moved + out + filters, channel_count, mask=real)


@triton.jit
def measure(
    programs,
    table,
    thresholds,
    distance,
    changed,
    moved,
    element: tl.constexpr,
    wide: tl.constexpr,
    fields: tl.constexpr,
    tile: tl.constexpr,
    band: tl.constexpr,
):
    """One program of the launch: look up the layer and the filters, and measure them."""
    layer = tl.load(programs + 2 * tl.program_id(0))
    first = tl.load(programs + 2 * tl.program_id(0) + 1)
    row = table + layer * fields
    w = tl.load(row).to(tl.pointer_type(element))
    p = tl.load(row + 1).to(tl.pointer_type(element))
    n, total = tl.load(row + 2), tl.load(row + 3)
    channels, entries = tl.load(row + 4).to(tl.int32), tl.load(row + 5).to(tl.int32)
    sg, sf, sc, sk = tl.load(row + 6), tl.load(row + 7), tl.load(row + 8), tl.load(row + 9)
    out, form = tl.load(row + 10), tl.load(row + 11)
    tau = tl.load(thresholds + layer).to(wide)
    if form == 0:
        _rows(
            w, p, tau, first, n, total, channels, entries, sg, sf, sc, sk, out, distance, changed, moved, wide, tile, 64
        )
    elif form == 1:
        _rows(
            w,
            p,
            tau,
            first,
            n,
            total,
            channels,
            entries,
            sg,
            sf,
            sc,
            sk,
            out,
            distance,
            changed,
            moved,
            wide,
            tile,
            256,
        )
    elif form == 2:
        _rows(
            w,
            p,
            tau,
            first,
            n,
            total,
            channels,
            entries,
            sg,
            sf,
            sc,
            sk,
            out,
            distance,
            changed,
            moved,
            wide,
            tile,
            1024,
        )
    elif form == 3:
        _entries(w, p, tau, first, n, channels, entries, sg, sf, sc, sk, out, distance, changed, moved, wide, tile)
    else:
        _filters(
            w, p, tau, first, n, total, channels, entries, sg, sf, sc, sk, out, distance, changed, moved, wide, band
        )
