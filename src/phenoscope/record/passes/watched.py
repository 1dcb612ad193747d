"""A layer under watch, and what a pass gives for all of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..layers import Layer
from .layout import Layout, layout


class Moved(NamedTuple):
    """Over all filters of the watched layers: squared distance (float64), entries and channels that moved."""

    distance: np.ndarray
    changed: np.ndarray
    moved: np.ndarray


class Restructured(Exception):
    """A weight now lies otherwise in memory: the pass has to be built anew."""


@dataclasses.dataclass(frozen=True)
class Watched:
    """A layer, its live weight, its threshold, and the place of its first filter in the results."""

    layer: Layer
    weight: Tensor
    threshold: float
    start: int = 0

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def layout(self) -> Layout | None:
        return layout(self.layer, self.weight)

    @property
    def weight_entries(self) -> int:
        channels, entries = self.layer.entries
        return len(self.layer) * channels * entries


def round_down(threshold: float, dtype: torch.dtype) -> Any:
    """The largest float32 that is no larger: comparing float32 differences with it is then exact."""
    if dtype == torch.float64:
        return np.float64(threshold)
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded
