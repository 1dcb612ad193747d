"""Chooses the pass for every layer (numba on CPU, Triton on CUDA, plain torch elsewhere) and joins what they give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import torch

from .plain import PlainPass
from .watched import Moved, Watched


class Pass(Protocol):
    """One way to measure a list of layers."""

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call; the result is waited for where it is asked for, not here."""


class Meter:
    """Measures layers on any mixture of devices, dtypes and memory layouts.

    Args:
        layers: in the order in which their filters come in the results.
    """

    def __init__(self, layers: Iterable[Watched]) -> None:
        self._layers = numbered(layers)
        self._filters = sum(len(layer) for layer in self._layers)
        kinds: dict[tuple[str, torch.device, torch.dtype], list[Watched]] = {}
        for layer in self._layers:
            kinds.setdefault(_kind(layer), []).append(layer)
        self._passes: list[tuple[Pass, np.ndarray | None]] = []
        for (kind, _, _), members in kinds.items():
            places = (
                None if len(kinds) == 1 else np.concatenate([np.arange(m.start, m.start + len(m)) for m in members])
            )
            self._passes.append((_make(kind, numbered(members)), places))

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call (or since the meter was made), and the copies brought up to date."""
        waiting = [(one.measure(), places) for one, places in self._passes]
        if len(waiting) == 1:
            return waiting[0][0]

        def join() -> Moved:
            whole = Moved(*(np.zeros(self._filters, dtype) for dtype in (np.float64, np.int64, np.int64)))
            for result, places in waiting:
                for column, part in zip(whole, result(), strict=True):
                    column[places] = part
            return whole

        return join


def _kind(layer: Watched) -> tuple[str, torch.device, torch.dtype]:
    weight = layer.weight
    kind = {"cpu": "numba", "cuda": "triton"}.get(weight.device.type, "plain")
    if kind != "plain" and (layer.layout is None or find_spec(kind) is None or weight.dtype not in _COMPILED):
        kind = "plain"
    return kind, weight.device, weight.dtype if kind == "triton" else torch.float32


_COMPILED = {torch.float32, torch.float64, torch.bfloat16, torch.float16}


def _make(kind: str, layers: list[Watched]) -> Pass:
    if kind == "numba":
        from .cpu import CpuPass

        return CpuPass(layers)
    if kind == "triton":
        from .cuda import CudaPass

        return CudaPass(layers)
    return PlainPass(layers)


def numbered(layers: Iterable[Watched]) -> list[Watched]:
    """The same layers, each starting where the one before it ends."""
    layers = list(layers)
    starts = np.cumsum([0, *(len(layer) for layer in layers)])
    return [dataclasses.replace(layer, start=int(start)) for layer, start in zip(layers, starts, strict=False)]


def joined(results: list[Callable[[], Moved]]) -> Callable[[], Moved]:
    """Several results as one, their filters one after the other."""
    if len(results) == 1:
        return results[0]
    return lambda: Moved(*(np.concatenate(columns) for columns in zip(*(result() for result in results), strict=True)))
