"""What the callbacks share: a recorder that a trainer starts, stops and goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from ..core.errors import InputError
from ..record import Recorder

_FOUND = ("optimizer", "resume", "step")


class Attached:
    """A recorder on one optimizer of a trainer, and the number of updates that a checkpoint has to know.

    A run of this process that an exception has left open, as in a notebook, ends when the same folder is gone on with.

    Args:
        model: the module to record.
        path: the folder of the run.
        optimizer: whose updates are counted; accelerate's wrapper is looked through.
        updates: how many it had made before; `None` if training begins.
        settings: the Recorder's.

    Attributes:
        updates: how many the optimizer has made, on every process.
    """

    _open: ClassVar[dict[Path, Attached]] = {}

    def __init__(
        self,
        model: nn.Module,
        path: Path,
        *,
        optimizer: Optimizer,
        updates: int | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.updates = updates or 0
        self._every = settings.get("every", signature(Recorder).parameters["every"].default)
        self._path = path.resolve()
        if self._path in self._open:
            if updates is None and not settings.get("overwrite"):
                raise InputError(
                    f"{path} holds a run that an error has left open: overwrite=True replaces it, or choose another "
                    "folder"
                )
            self._open[self._path]._abandon()
        self.recorder = Recorder(
            model, path, optimizer=optimizer, resume=updates is not None, step=updates, **dict(settings)
        )
        while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
            optimizer = optimizer.optimizer  # type: ignore[attr-defined]
        self._hook = optimizer.register_step_post_hook(self._count)
        self._open[self._path] = self

    @property
    def at_record(self) -> bool:
        """Whether the latest update is one that is recorded."""
        return self.updates % self._every == 0

    def close(self, error: BaseException | None = None) -> None:
        """End the run; after an error without what needs all processes."""
        self._let_go()
        self.recorder.__exit__(type(error) if error is not None else None, error, None)

    def _abandon(self) -> None:
        """End the run without keeping weights: those in the model are no longer of its last update."""
        self._let_go()
        self.recorder.abandon()

    def _let_go(self) -> None:
        self._hook.remove()
        if self._open.get(self._path) is self:
            del self._open[self._path]

    def _count(self, *_: Any) -> None:
        self.updates += 1


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of the Recorder that the trainer decides."""
    for name in _FOUND:
        if name in settings:
            raise InputError(f"{name}= is not to be given: the callback takes it from the trainer")
