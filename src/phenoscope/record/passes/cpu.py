"""The pass on CPU: the compiled kernels over all layers, shared among threads by equal work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .layout import flat
from .watched import Moved, Watched

_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.uint16}


class CpuPass:
    """Measures a fixed list of layers whose weights lie on the CPU.

    The extra memory is one copy of the weights.
    """

    def __init__(self, layers: list[Watched]) -> None:
        from .numba_kernels import kernels

        self._layers = layers
        self._filters = sum(len(layer) for layer in layers)
        self._states = [_State(layer) for layer in layers]
        self._kernels = [getattr(kernels(s.weight.dtype), s.layout.order) for s in self._states]
        self._shares = _share(layers, max(1, min(torch.get_num_threads(), os.cpu_count() or 1)))
        self._run([(i, 0, 0) for i in range(len(layers))], *self._results())  # compile now, not in the training loop

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call, and the copies brought up to date."""
        for state in self._states:
            state.follow()
        results = self._results()
        if len(self._shares) == 1:
            self._run(self._shares[0], *results)
        else:
            pool = _pool(len(self._shares) - 1)
            others = [pool.submit(self._run, share, *results) for share in self._shares[1:]]
            self._run(self._shares[0], *results)
            for other in others:
                other.result()
        return lambda: Moved(*results)

    def refresh(self) -> None:
        """Bring the copies up to date without measuring."""
        for state in self._states:
            state.follow()
            np.copyto(state.before, state.after)

    def _results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = self._filters
        return np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)

    def _run(self, share: list[tuple[int, int, int]], *results: np.ndarray) -> None:
        for index, f0, f1 in share:
            state, layer = self._states[index], self._layers[index]
            out = slice(layer.start, layer.start + len(layer))
            places = (array[out] for array in results)
            self._kernels[index](state.after, state.before, state.threshold, f0, f1, *state.place, *places)


class _State:
    """One layer's memory as numpy arrays: the weight (followed if the tensor moves) and its copy."""

    def __init__(self, layer: Watched) -> None:
        self.weight, self.layout = layer.weight, layer.layout
        self.threshold = _round_down(layer.threshold, layer.weight.dtype)
        lay = layer.layout
        self.place = (lay.offset, lay.filters, lay.channels, lay.entries, lay.sg, lay.sf, lay.sc, lay.sk)
        self._address = -1
        self.follow()
        self.before = self.after.copy()

    def follow(self) -> None:
        """Find the weight again: an optimizer or `load_state_dict(assign=True)` may have put other memory behind it."""
        address = self.weight.data_ptr()
        if address != self._address:
            self.after = _memory(self.weight)
            self._address = address


def _memory(weight: Tensor) -> np.ndarray:
    return flat(weight.detach()).view(_BITS.get(weight.dtype, weight.dtype)).numpy()


def _round_down(threshold: float, dtype: torch.dtype) -> Any:
    """The largest float32 that is no larger: comparing float32 differences with it is then exact."""
    if dtype == torch.float64:
        return np.float64(threshold)
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded


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
