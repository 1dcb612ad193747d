"""Two counts of a filter in one whole number, so that a filter and a record take 8 bytes with the distance.

Of a filter with C channels of K entries, m channels and n entries moved. As every moved channel has between 1 and K
moved entries, m <= n <= K m, and `n + (K - 1) m (m - 1) / 2` numbers all possible pairs without gaps. It stays below
2^32 up to about C = 8192 channels of K = 128 entries; wider layers take 64 bits.
"""

from __future__ import annotations

import numpy as np

MISSING = np.iinfo(np.uint64).max  # no value: a gap, or a layer that did not exist yet; as 32 bits also the largest


def dtype_for(channels: int, entries: int) -> np.dtype:
    """The narrowest of 32 and 64 bits that holds the counts of such filters."""
    largest = channels * entries + (entries - 1) * channels * (channels - 1) // 2
    return np.dtype(np.uint32 if largest < np.iinfo(np.uint32).max else np.uint64)


def pack(changed: np.ndarray, moved: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Counts of entries and of channels that moved, as one; all arrays (..., filters)."""
    m, k = moved.astype(np.uint64), np.asarray(entries, np.uint64)
    one = np.uint64(1)
    return changed.astype(np.uint64) + (k - one) * (m * (m - np.minimum(m, one)) // np.uint64(2))


def unpack(code: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """(changed, moved) of `pack`, for filters with `entries` entries a channel; NaN where there is no value."""
    missing = code == np.iinfo(code.dtype).max
    changed, moved = _unpack(np.where(missing, 0, code).astype(np.int64), entries)
    return np.where(missing, np.nan, changed), np.where(missing, np.nan, moved)


def _unpack(code: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    k = entries - 1
    if k == 0:
        return code, code.copy()
    # the largest m whose first code, k m (m - 1) / 2 + m, is not above this one: a root, then made exact
    m = np.floor((k - 2 + np.sqrt((k - 2.0) ** 2 + 8.0 * k * code)) / (2.0 * k)).astype(np.int64)

    def first(m: np.ndarray) -> np.ndarray:
        return k * (m * (m - 1) // 2) + m

    m = np.where(first(m) > code, m - 1, m)
    m = np.where(first(m + 1) <= code, m + 1, m)
    return code - k * (m * (m - 1) // 2), m
