"""Asks a watch's observers while a recorded network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, say
from ..core.guard import unchanged
from ..train.watch import Due, Watch, observed
from .seen import Look


class Watching:
    """Calls every observer of a watch at its steps. One that fails is reported and left out.

    The network is in evaluation mode and without gradients meanwhile, and training does not notice: modes, buffers,
    gradients and torch's random numbers are afterwards what they were.

    Args:
        watch: the observers and their steps.
        model: what they are given.
        keep: called with what they gave.
    """

    def __init__(self, watch: Watch, model: nn.Module, keep: Callable[[Look], None]) -> None:
        if not isinstance(watch, Watch):
            raise InputError(f"watch must be a train.Watch of observers, not {type(watch).__name__}")
        self._model, self._keep = model, keep
        self._observers = dict(watch.observers)
        self._due = Due(watch.at, "watch", None)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._looked: int | None = None

    def go_on(self, step: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Go on with a run at a step; its observers gave values of these shapes."""
        self._looked, self._shapes = step, dict(shapes)

    def look(self, step: int, *, last: bool = False) -> None:
        """Ask the observers, if it is time."""
        if not self._due(step, last=last) or step == self._looked or not self._observers or _unborn(self._model):
            return
        self._looked = step
        values: dict[str, np.ndarray] = {}
        for name in list(self._observers):
            try:
                values[name] = self._ask(name)
            except Exception as error:  # training must go on whatever an observer does
                del self._observers[name]
                say(
                    f"observer {name!r} failed at update {step} and is left out from here on, recording and training "
                    f"go on ({type(error).__name__}: {error})"
                )
        if values:
            self._keep(Look(step, values))

    def _ask(self, name: str) -> np.ndarray:
        with unchanged(self._model), _same_random_numbers(self._model), torch.no_grad():
            self._model.eval()
            value = observed(self._observers[name](self._model), name).numpy()
        shape = self._shapes.setdefault(name, value.shape)
        if shape != value.shape:
            raise InputError(f"it gave shape {value.shape}, and {shape} before")
        return value


def _unborn(model: nn.Module) -> bool:
    """Whether a lazy module has not seen its first batch."""
    return any(nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def _same_random_numbers(model: nn.Module) -> Any:
    devices = {p.device for p in model.parameters() if p.is_cuda}
    return torch.random.fork_rng(devices=sorted(device.index for device in devices))
