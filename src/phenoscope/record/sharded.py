"""Weights spread over processes (FSDP2, tensor parallelism): each measures its shard, the sums meet at rank 0.

Squared distances and counts of moved entries are sums over entries, so they add up wherever the cut runs. Counts of
moved channels add up unless a cut runs through a channel of a filter (a head whose rows lie on two processes): for
those filters a flag a channel travels too, and rank 0 counts after joining the flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import InputError
from .layers import Found, Layer
from .passes.meter import Meter
from .passes.watched import Moved, Watched


def is_sharded(weight: Tensor) -> bool:
    return hasattr(weight, "placements") and hasattr(weight, "to_local")


def process_group() -> Any:
    """A group of the recorder's own, so that its sums never wait in the queue of the training's collectives."""
    return dist.new_group(backend="gloo", timeout=timedelta(minutes=10))


class _Piece(NamedTuple):
    """A part of a local shard that is a regular layer of its own, and the filters that it contributes to."""

    layer: Layer
    weight: Callable[[Tensor], Tensor]
    filters: np.ndarray
    straddles: bool


class ShardedMeter:
    """Measures shards here, and gives whole numbers at rank 0; elsewhere the numbers are partial and of no use."""

    def __init__(self, found: list[Found], thresholds: list[float]) -> None:
        self._group = process_group()  # one a meter: the writer's thread sums on it, and nothing else happens there
        starts = np.cumsum([0, *(len(each.layer) for each in found)])
        self._filters = int(starts[-1])
        whole: list[Watched] = []
        split: list[tuple[Watched, int]] = []
        places: list[np.ndarray] = []
        for each, threshold, start in zip(found, thresholds, starts, strict=False):
            weight: Any = each.weight
            local = weight.to_local() if is_sharded(weight) else weight
            for piece in _pieces(each.layer, each.weight):
                weight = piece.weight(local.detach())
                if piece.straddles:
                    split.append((Watched(piece.layer, weight, threshold), int(start + piece.filters[0])))
                elif weight.numel():
                    whole.append(Watched(piece.layer, weight, threshold))
                    places.append(start + piece.filters)
        self._meter = Meter(whole)
        self._places = np.concatenate(places) if places else np.empty(0, np.int64)
        self._split = split
        self._before = [watched.weight.clone() for watched, _ in split]
        self._flags = self._agree()

    def _agree(self) -> dict[int, slice]:
        """Where the flags of every straddling filter stand in the sum; the same on all processes."""
        mine = {place: watched.layer.entries[0] for watched, place in self._split}
        everyone: list[dict[int, int]] = [{} for _ in range(dist.get_world_size(self._group))]
        dist.all_gather_object(everyone, mine, group=self._group)
        lengths = {place: length for each in everyone for place, length in each.items()}
        flags, at = {}, 3 * self._filters
        for place in sorted(lengths):
            flags[place] = slice(at, at + lengths[place])
            at += lengths[place]
        self._size = at
        return flags

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call; the result, asked for on all processes in the same order, sums them."""
        own = self._meter.measure()
        parts = [self._compare(i) for i in range(len(self._split))]
        return lambda: self._sum(own(), parts)

    def _compare(self, index: int) -> tuple[int, Tensor, Tensor]:
        (watched, place), before = self._split[index], self._before[index]
        wide = torch.float64 if watched.weight.dtype == torch.float64 else torch.float32
        blocks = watched.layer.blocks
        difference = (blocks(watched.weight).to(wide) - blocks(before).to(wide)).flatten(3)[0, 0].double()
        before.copy_(watched.weight)
        return place, difference.square().sum(), ~(difference.abs() <= watched.threshold)

    def _sum(self, own: Moved, parts: list[tuple[int, Tensor, Tensor]]) -> Moved:
        n = self._filters
        numbers = np.zeros(self._size)
        for column, values in enumerate(own):
            np.add.at(numbers[column * n : (column + 1) * n], self._places, values)
        for place, square, far in parts:
            numbers[place] += float(square)
            numbers[n + place] += int(far.sum())
            numbers[self._flags[place]] += far.any(1).cpu().numpy()
        total = torch.from_numpy(numbers)
        dist.reduce(total, 0, group=self._group)
        for place, flags in self._flags.items():
            numbers[2 * n + place] = np.count_nonzero(numbers[flags])
        return Moved(numbers[:n].copy(), numbers[n : 2 * n].astype(np.int64), numbers[2 * n : 3 * n].astype(np.int64))


def _pieces(layer: Layer, weight: Tensor) -> list[_Piece]:
    """The regular parts of this process's shard of a layer's weight."""
    if not is_sharded(weight):
        owner = dist.get_rank() == 0
        return [_Piece(layer, lambda local: local, np.arange(len(layer)), False)] if owner else []
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded: Any = weight
    coordinates = sharded.device_mesh.get_coordinate()
    if coordinates is None or any(
        isinstance(p, Replicate) and c for p, c in zip(sharded.placements, coordinates, strict=True)
    ):
        return []  # nothing of it lies here, or another process holds the same
    shape, offset = compute_local_shape_and_global_offset(weight.shape, sharded.device_mesh, sharded.placements)
    cut = [axis for axis in range(weight.ndim) if shape[axis] != weight.shape[axis]]
    local = dataclasses.replace(layer, shape=tuple(shape))
    if 0 in shape:
        return []
    if not cut:
        return [_Piece(layer, lambda local: local, np.arange(len(layer)), False)]
    if layer.expert is not None and cut == [3 - layer.filters - layer.channels]:
        here = layer.expert - offset[cut[0]]
        mine = np.arange(len(layer))
        return (
            [_Piece(dataclasses.replace(local, expert=here), lambda w: w, mine, False)]
            if 0 <= here < shape[cut[0]]
            else []
        )
    if cut == [layer.filters] and layer.rows is None and not layer.heads:
        per_group = len(layer) // layer.groups if layer.channels == 0 else len(layer)
        groups = layer.groups if layer.channels == 0 else 1
        mine = np.arange(offset[layer.filters], offset[layer.filters] + shape[layer.filters])
        return [_Piece(local, lambda w: w, np.concatenate([g * per_group + mine for g in range(groups)]), False)]
    if cut == [layer.channels] and layer.groups == 1:
        return [_Piece(local, lambda w: w, np.arange(len(layer)), False)]
    if cut == [layer.channels]:
        return list(_by_group(layer, shape[0], offset[0]))
    if cut == [layer.filters]:
        return list(_by_head(layer, shape[layer.filters], offset[layer.filters]))
    raise InputError(f"layer {layer.name!r} is sharded along axes {cut} of its weight, which cannot be recorded")


def _by_group(layer: Layer, length: int, start: int) -> Any:
    """A grouped transposed convolution cut along its input channels."""
    size, per_group = layer.shape[0] // layer.groups, len(layer) // layer.groups
    for g in range(layer.groups):
        low, high = max(start, g * size), min(start + length, (g + 1) * size)
        if low < high:
            part = dataclasses.replace(layer, shape=(high - low, *layer.shape[1:]), groups=1)
            yield _Piece(part, _narrow(0, low - start, high - low), g * per_group + np.arange(per_group), False)


def _by_head(layer: Layer, length: int, start: int) -> Any:
    """A projection cut along its rows: whole heads, and heads that lie on several processes."""
    first, last = layer.rows or (0, layer.shape[layer.filters])
    parts, part = layer.interleaved or (1, 0)
    size = (last - first) // (layer.heads * parts) if layer.heads else 1
    count = layer.heads or last - first
    for head in range(count):
        at = first + (head * parts + part) * size
        low, high = max(start, at), min(start + length, at + size)
        if low < high:
            shape = list(layer.shape)
            shape[layer.filters] = high - low
            one = dataclasses.replace(layer, shape=tuple(shape), rows=None, heads=1, interleaved=None)
            narrow = _narrow(layer.filters, low - start, high - low)
            yield _Piece(one, narrow, np.array([head]), high - low < size)


def _narrow(axis: int, start: int, length: int) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight.narrow(axis, start, length)


class Summing:
    """A process that only takes part in the sums of a sharded model."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="phenoscope-sum")

    def add(self, step: int, moved: Callable[[], Moved] | None, scalars: dict[str, Any]) -> None:
        if moved is not None:
            self._thread.submit(moved)

    def close(self, *, step: int | None = None, interrupted: bool = False) -> None:
        self._thread.shutdown(wait=True)
