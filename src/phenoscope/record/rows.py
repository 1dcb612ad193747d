"""Records on their way to disk: from what a pass gives to the blocks of the journal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .counts import MISSING, pack
from .layers import Layer
from .passes.watched import Moved
from .store import Block


@dataclasses.dataclass
class Record:
    """One record on its way to disk. `moved` gives the numbers, waiting for the device if need be; `None` is a gap."""

    step: int
    moved: Callable[[], Moved] | None
    scalars: dict[str, Any]
    filters: int
    layers: int
    born: float = dataclasses.field(default_factory=time.monotonic)


class Row(NamedTuple):
    """A record as it will stand on disk: means by layer (distance, entries and channels moved), values by filter."""

    record: Record
    gap: bool
    means: np.ndarray
    distance: np.ndarray
    counts: np.ndarray


def measured(record: Record, layers: list[Layer]) -> Row:
    """A record as it will stand on disk: layer means, and packed values by filter."""
    if record.moved is None:
        nothing = np.full(record.filters, np.nan, np.float32), np.full(record.filters, MISSING, np.uint64)
        return Row(record, True, np.full((record.layers, 3), np.nan), *nothing)
    numbers = record.moved()
    sizes = np.array([len(layer) for layer in layers])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    means = np.stack([np.add.reduceat(v.astype(np.float64), starts) / sizes for v in numbers], axis=-1)
    entries = np.repeat([layer.entries[1] for layer in layers], sizes)
    with np.errstate(over="ignore"):
        return Row(
            record, False, means, numbers.distance.astype(np.float32), pack(numbers.changed, numbers.moved, entries)
        )


def as_block(rows: list[Row], kept: list[bool], names: list[str], counts: np.dtype) -> Block:
    """Rows of one width as a block of the journal; new names of scalars are added to `names`."""
    scalars = [{name: number(value) for name, value in row.record.scalars.items()} for row in rows]
    names += sorted({name for each in scalars for name in each} - set(names))
    some = [row for row, keep in zip(rows, kept, strict=True) if keep]
    filters = rows[0].record.filters
    return {
        "step": np.array([row.record.step for row in rows], np.int64),
        "gap": np.array([row.gap for row in rows], bool),
        "layers": np.stack([row.means for row in rows]),
        "scalars": np.array([[each.get(n, np.nan) for n in names] for each in scalars]).reshape(len(rows), -1),
        "names": np.array(names, dtype=str),
        "kept": np.array(kept),
        "distance": np.stack([row.distance for row in some]) if some else np.empty((0, filters), np.float32),
        "counts": np.stack([row.counts for row in some]).astype(counts) if some else np.empty((0, filters), counts),
    }


def number(value: Any) -> float:
    """A logged scalar as it is kept: NaN where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return float("nan")


def measures(distance: Any, changed: Any, moved: Any, channels: Any, entries: Any) -> dict[str, Any]:
    """The four measures from sums and counts over filters of that many channels of that many entries."""
    return {
        "distance": distance,
        "distance_per_weight": distance / (channels * entries),
        "changed": changed / (channels * entries),
        "idle": (channels - moved) / channels,
    }
