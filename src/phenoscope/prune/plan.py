"""Which of the chosen filters can go, and why the others stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..record.layers import Layer
from ..record.redundant import Filters
from .coupling import Coupling, Part


class Plan:
    """Starts from the chosen filters and takes back what cannot go, until nothing more has to be taken back.

    Args:
        coupling: what goes together.
        filters: the choice.
        norms: layer -> L1 norm of each of its filters, to tell which one is left where all were chosen.
    """

    def __init__(self, coupling: Coupling, filters: Filters, norms: Mapping[str, Tensor]) -> None:
        self._coupling, self._layers, self._norms = coupling, filters.layers, norms
        self._going = {name: set(filters[name].tolist()) for name in filters}
        self._reasons: dict[str, dict[int, str]] = {name: {} for name in filters}
        self._parts: dict[str, list[Part]] = {}
        for name in filters:
            why = coupling.obstacle(name)
            if why:
                self._keep(name, dict.fromkeys(self._going[name], why))
        self.settle()

    @property
    def filters(self) -> Filters:
        """What goes."""
        return Filters({name: sorted(going) for name, going in self._going.items()}, self._layers)

    @property
    def kept(self) -> dict[str, tuple[np.ndarray, str]]:
        """Layer -> what was chosen and stays, and why."""
        return {
            name: (np.array(sorted(reasons), dtype=np.int64), "; ".join(dict.fromkeys(reasons.values())))
            for name, reasons in self._reasons.items()
            if reasons
        }

    def parts(self, names: Iterable[str] | None = None) -> list[Part]:
        """All channels that go, with the filters of these layers or of all."""
        return [part for name in (self._going if names is None else names) for part in self._parts.get(name, [])]

    def keep_layer(self, name: str, why: str) -> None:
        """Keep a whole layer; `settle` then follows what that means for others."""
        self._keep(name, dict.fromkeys(self._going[name], why))

    def settle(self) -> None:
        """Take back filters until all that go can go together and every layer has one left."""
        while True:
            while sum(self._settle(name) for name in self._going):
                pass
            if not any(self._leave_one(name) for name in self._going):
                return

    def _settle(self, name: str) -> bool:
        """Take back the filters of a layer that cannot go; whether there were any."""
        changed = False
        self._parts[name] = []
        while self._going[name]:
            parts = self._coupling.parts(name, sorted(self._going[name]))
            staying = {root: why for part in parts for root, why in self._staying(part).items()}
            if not staying:
                self._parts[name] = parts
                break
            self._keep(name, staying)
            changed = True
        return changed

    def _staying(self, part: Part) -> dict[int, str]:
        """Filters that cannot go because of one part of what would go with them."""
        if part.obstacle:
            return dict.fromkeys(part.roots, part.obstacle)
        if part.side != "in" and self._coupling.is_layer(part.module):
            going = self._going.get(part.module, ())
            why = f"coupled to filters of {part.module} that stay"
            staying = {r: why for i, r in zip(part.indices, part.roots, strict=True) if i not in going}
            if staying:
                return staying
        return self._unequal(part)

    def _unequal(self, part: Part) -> dict[int, str]:
        """Filters that would leave the groups of a grouped convolution unequal."""
        module = self._coupling.module(part.module)
        if part.side == "both" or not isinstance(module, nn.modules.conv._ConvNd) or module.groups == 1:
            return {}
        size = (module.in_channels if part.side == "in" else module.out_channels) // module.groups
        groups: list[dict[int, int]] = [{} for _ in range(module.groups)]  # of each group: place in it -> root
        for index, root in zip(part.indices, part.roots, strict=True):
            groups[index // size][index % size] = root
        why = f"the {module.groups} groups of {part.module} have to stay of one size"
        if part.side == "in":  # one weight serves all groups' channels of a place, so they go together
            common = set.intersection(*(set(group) for group in groups))
            return {root: why for group in groups for place, root in group.items() if place not in common}
        count = min(map(len, groups))
        norms = self._norms[part.module]
        staying: dict[int, str] = {}
        for number, group in enumerate(groups):
            largest_first = sorted(group, key=lambda place: -float(norms[number * size + place]))
            staying |= {group[place]: why for place in largest_first[: len(group) - count]}
        return staying

    def _leave_one(self, name: str) -> bool:
        """Where all filters of a layer would go, keep the one with the largest norm over all that goes with it."""
        if len(self._going[name]) < len(self._layers[name]):
            return False
        total = dict.fromkeys(self._going[name], 0.0)
        for part in self._parts[name]:
            if part.side != "in" and self._coupling.is_layer(part.module):
                for index, root in zip(part.indices, part.roots, strict=True):
                    total[root] += float(self._norms[part.module][index])
        largest = max(total, key=lambda root: (total[root], -root))
        self._keep(name, {largest: "a layer keeps at least one filter"})
        return True

    def _keep(self, name: str, staying: Mapping[int, str]) -> None:
        self._going[name] -= staying.keys()
        for index, why in staying.items():
            self._reasons[name].setdefault(index, why)


def norms(layers: Mapping[str, Layer], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The L1 norm of every filter of every layer, on the CPU in float64."""
    blocks = {name: layer.blocks(weights[name].detach()).flatten(2) for name, layer in layers.items()}
    return {name: block.abs().sum(2, dtype=torch.float64).flatten().cpu() for name, block in blocks.items()}
