"""The pass on CPU: the compiled kernels over all layers, shared among threads by equal work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .layout import flat
from .watched import Moved, Restructured, Watched, round_down

_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}  # by the sign the kernels tell them apart


class CpuPass:
    """Measures a fixed list of layers whose weights lie densely on the CPU.

    The extra memory is one copy of the weights. Layers that are parts of one weight share its copy.
    """

    def __init__(self, layers: list[Watched]) -> None:
        self._layers = layers
        self._filters = sum(len(layer) for layer in layers)
        copies = {id(layer.weight): _Copy(layer.weight) for layer in layers}
        self._copies = list(copies.values())
        self._jobs = [_job(layer, copies[id(layer.weight)]) for layer in layers]
        self._shares = _share(layers, max(1, min(torch.get_num_threads(), os.cpu_count() or 1)))
        self._run([(i, 0, 0) for i in range(len(layers))], *self._results())  # compile now, not in the training loop

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call, and the copies brought up to date."""
        for copy in self._copies:
            copy.follow()
        results = self._results()
        others = [_pool(len(self._shares)).submit(self._run, share, *results) for share in self._shares[1:]]
        self._run(self._shares[0], *results)
        for other in others:
            other.result()
        return lambda: Moved(*results)

    def _results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = self._filters
        return np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)

    def _run(self, share: list[tuple[int, int, int]], *results: np.ndarray) -> None:
        for index, f0, f1 in share:
            job = self._jobs[index]
            places = (array[job.out] for array in results)
            job.kernel(job.copy.after, job.copy.before, job.threshold, f0, f1, *job.place, *places)


class _Copy:
    """A weight's memory and that of its copy, as flat numpy arrays."""

    def __init__(self, weight: Tensor) -> None:
        self._weight, self._stride = weight, weight.stride()
        self._address = weight.data_ptr()
        self.after = _memory(weight)
        self.before = self.after.copy()

    def follow(self) -> None:
        """Find the weight again if other memory was put behind it (a swapped `.data`, a move to shared memory)."""
        address = self._weight.data_ptr()
        if address != self._address:
            if self._weight.stride() != self._stride:
                raise Restructured
            self.after, self._address = _memory(self._weight), address


class _Job(NamedTuple):
    copy: _Copy
    kernel: Any
    threshold: Any
    place: tuple[int, ...]
    out: slice


def _job(layer: Watched, copy: _Copy) -> _Job:
    from . import numba_kernels

    order, offset, _groups, *lengths_and_steps = layer.layout  # type: ignore[misc]
    threshold = round_down(layer.threshold, layer.weight.dtype)
    out = slice(layer.start, layer.start + len(layer))
    return _Job(copy, getattr(numba_kernels, order), threshold, (offset, *lengths_and_steps), out)


def _memory(weight: Tensor) -> np.ndarray:
    return flat(weight.detach()).view(_BITS.get(weight.dtype, weight.dtype)).numpy()


def _share(layers: list[Watched], threads: int) -> list[list[tuple[int, int, int]]]:
    """(layer, first filter, last filter) for each thread, with equally many entries a thread."""
    total = sum(layer.weight_entries for layer in layers)
    if total < 50_000:  # handing work over would cost more than the work
        threads = 1
    shares: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
    budget, left, thread = total / threads, total / threads, 0
    for index, layer in enumerate(layers):
        size, first, count = layer.weight_entries / len(layer), 0, len(layer)
        while first < count:
            take = count - first if thread == threads - 1 else min(count - first, max(1, round(left / size)))
            shares[thread].append((index, first, first + take))
            first, left = first + take, left - take * size
            if left <= 0 and thread < threads - 1:
                thread, left = thread + 1, left + budget
    return [share for share in shares if share]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="phenoscope-pass")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along into a forked process
