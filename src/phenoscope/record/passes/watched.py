"""A layer under watch, and what a pass gives for all of them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..layers import Layer
from .layout import Layout, layout


class Moved(NamedTuple):
    """Over all filters of the watched layers: squared distance (float64), entries and channels that moved."""

    distance: np.ndarray
    changed: np.ndarray
    moved: np.ndarray


@dataclasses.dataclass(frozen=True)
class Watched:
    """A layer, its live weight, its threshold, and the place of its first filter in the results."""

    layer: Layer
    weight: Tensor
    threshold: float
    start: int

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def layout(self) -> Layout | None:
        return layout(self.layer, self.weight)

    @property
    def weight_entries(self) -> int:
        channels, entries = self.layer.entries
        return len(self.layer) * channels * entries
