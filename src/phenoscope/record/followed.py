"""The layers that a recorder follows: found in the model, measured, taken up anew when their weights are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.errors import InputError
from . import store
from .choose import MOST, Layers
from .layers import Found, find_layers
from .passes.meter import Meter, joined
from .passes.watched import Moved, Restructured, Watched
from .sharded import ShardedMeter, is_sharded
from .thresholds import Threshold, thresholds


class Followed:
    """Layers of a network and the meters on them.

    Args:
        model: the network, unwrapped.
        optimizer: whose parameters and rates decide on new layers and on thresholds.
        threshold, heads, embeddings, layers: as the Recorder's.

    Attributes:
        found: the layers, with their weights.
        taus: the threshold of each by name, once they are `settle`d.
        sharded: whether weights are spread over processes.

    Raises:
        InputError: no layer has filters.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        *,
        threshold: Threshold,
        heads: Mapping[str, int] | None,
        embeddings: bool,
        layers: Layers,
    ) -> None:
        self._optimizer, self._threshold = optimizer, threshold
        self._find = lambda: find_layers(model, heads=heads, embeddings=embeddings, layers=layers, most=MOST)
        self.found, self._pending = self._find()
        if not self.found and not self._pending:
            raise InputError("the model has no layer with filters (convolution, linear, attention)")
        self.sharded = any(is_sharded(each.weight) for each in self.found)
        self.taus: dict[str, float] = {}
        self._known = self._parameters()
        self._meters: list[Meter | ShardedMeter] = []

    def settle(self, path: Path | None) -> None:
        """Fix the thresholds; those of the run at `path`, which is gone on with, stay what they were."""
        if path is not None and self._threshold is None and store.is_run(path):
            self._threshold = _recorded_thresholds(path)
        self._add_taus(self.found)

    def build(self) -> None:
        """Make the meters; their copies are the state that the next record is compared with."""
        self._meters = []
        self._add_meter(self.found)

    def measure(self) -> Callable[[], Moved] | None:
        """What moved since the last call; `None` where weights are others now, or lie otherwise in memory."""
        if any(each.current() is not each.weight for each in self.found):
            self.found = [each._replace(weight=each.current()) for each in self.found]
            self.build()
            return None
        try:
            return joined([meter.measure() for meter in self._meters])
        except Restructured:
            self.build()
            return None

    def discover(self) -> list[Found]:
        """Take up layers that a lazy module has made, or a group added to the optimizer."""
        if not self._pending and self._parameters() == self._known:
            return []
        self._known = self._parameters()
        found, self._pending = self._find()
        names = {each.layer.name for each in self.found}
        new = [each for each in found if each.layer.name not in names]
        if new:
            self._add_taus(new)
            self.found += new
            self._add_meter(new)
        return new

    def rates(self) -> dict[str, Any]:
        """The learning rate; where groups differ, that of each."""
        groups = self._optimizer.param_groups if self._optimizer else []
        rates = [group["lr"] for group in groups if "lr" in group]
        rates = [rate.detach().clone() if isinstance(rate, Tensor) else rate for rate in rates]
        alike = all(isinstance(rate, float) and rate == rates[0] for rate in rates)
        return {"lr" if i == 0 else f"lr/{i}": rate for i, rate in enumerate(rates[:1] if alike else rates)}

    def _add_taus(self, found: list[Found]) -> None:
        taus = thresholds(found, self._threshold, self._optimizer)
        self.taus |= {each.layer.name: tau for each, tau in zip(found, taus, strict=True)}

    def _add_meter(self, found: list[Found]) -> None:
        taus = [self.taus[each.layer.name] for each in found]
        if self.sharded:
            self._meters.append(ShardedMeter(found, taus))
            return
        self._meters.append(Meter(Watched(f.layer, f.weight, tau) for f, tau in zip(found, taus, strict=True)))

    def _parameters(self) -> int:
        return sum(len(group["params"]) for group in self._optimizer.param_groups) if self._optimizer else 0


def _recorded_thresholds(path: Path) -> dict[str, float]:
    """Tau of every layer of a run, as patterns."""
    layers = store.read_json(path / "run.json").get("layers", [])
    return {_literal(str(layer["name"])): float(layer["threshold"]) for layer in layers}


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
