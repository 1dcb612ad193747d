"""Snapshots of a network while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import InputError
from .watch import At, settled

State = dict[str, Tensor]


class States(Mapping[int, State]):
    """Snapshots at chosen steps: step -> `state_dict`, on the CPU; 0 is the initialization.

    Given to `fit` or `fleet` as `states=States(at=...)`, it says when; what comes back as `states` holds them. In a
    fleet every tensor has the members as its first axis, and `states.member(i)` holds those of one.

    Args:
        at: the steps after which to keep the state; 0 is before the training. An integer `k` means every `k` steps,
            from 0, and after the last one.
        folder: where to keep one file a step, for states that do not fit into memory; `None` keeps them in memory.
            Files of an earlier training there, which are named by their step, are not overwritten: that is an error.
    """

    def __init__(self, at: At, *, folder: str | Path | None = None) -> None:
        self.at = settled(at, "states")
        self.folder = None if folder is None else Path(folder)
        self._states: dict[int, State | Path] = {}

    def empty(self) -> States:
        """The same wish with nothing kept yet.

        Raises:
            InputError: the folder holds states already.
        """
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if next(self.folder.glob("*.pt"), None) is not None:
                raise InputError(f"{self.folder} holds states already: give each training a folder of its own")
        return States(self.at, folder=self.folder)

    def keep(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep a copy of a state."""
        copy = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        if self.folder is None:
            self._states[step] = copy
        else:
            path = self.folder / f"{step}.pt"
            torch.save(copy, path)
            self._states[step] = path

    def member(self, index: int) -> States:
        """The states of one member of a fleet, in memory."""
        one = States(self.at)
        for step, state in self.items():
            one.keep(step, {name: value[index] for name, value in state.items()})
        return one

    def __getitem__(self, step: int) -> State:
        if step not in self._states:
            raise KeyError(f"no state of step {step!r}; kept are {list(self._states)}")
        state = self._states[step]
        return torch.load(state, weights_only=True) if isinstance(state, Path) else state

    def __iter__(self) -> Iterator[int]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __repr__(self) -> str:
        return f"<States: {list(self._states) or f'none yet, at {self.at}'}>"
