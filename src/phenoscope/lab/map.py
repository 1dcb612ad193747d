"""What an experiment works with: seeds, a device, and `map`, which does its cells and keeps them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from ..core.errors import InputError
from .seeds import seed_for
from .sources import address, plain
from .store import read_dataset
from .worker import Task, do

Engine = Callable[..., Iterator[tuple[int, str]]]
_ATTEMPTS = 3


class CellError(RuntimeError):
    """Cells failed; the others are kept."""


class Lab:
    """What an experiment, and each of its cells, gets as its first argument.

    Attributes:
        root: the root seed.
        device: where networks belong: "cpu", "cuda" ...
    """

    def __init__(self, root: int = 0, device: str = "cpu", *, keeper: Keeper | None = None):
        self.root = root
        self.device = device
        self._keeper = keeper

    def __reduce__(self) -> Any:
        return Lab, (self.root, self.device)  # a cell gets seeds and a device; who keeps results stays behind

    def seed(self, *path: str | int | float) -> int:
        """The seed that belongs to a path of names (`seeds.seed_for`)."""
        return seed_for(self.root, *path)

    def map(self, function: Callable[..., xr.Dataset], cells: Iterable[Mapping[str, Any]]) -> list[xr.Dataset]:
        """Do independent cells, each in a process with one thread, and keep each on disk as soon as it is done.

        Args:
            function: called as `function(lab, **cell)`; it stands at the top of a module.
            cells: keyword arguments of each: numbers, text, functions, arrays, lists of them.

        Returns:
            Their results, in the order of the cells.

        Raises:
            InputError: a function inside another one, or arguments that cannot be named.
            CellError: cells failed; the message names their arguments. The others are kept, and a further run does
                only what is left.
        """
        made = [dict(cell) for cell in cells]
        if "<" in function.__qualname__:
            raise InputError(f"{function.__qualname__} must stand at the top of a module, so that processes find it")
        if self._keeper is None:
            lab = Lab(self.root, self.device)
            return [do(Task(function, lab, cell, Path(), words(cell))) for cell in made]
        return self._keeper.map(self, function, made)


class Keeper:
    """Finds finished cells on disk and gives the others to an engine.

    Args:
        folder: where cells are kept.
        engine: `engine(tasks, replace=)` does them (`local.local`, `ray.on_ray`).
        sources: digest of the study's sources and the package's version.
        fresh: whether finished cells are done again.
        progress: called as `progress(done, total, words of the last one)`.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        sources: str,
        *,
        fresh: bool = False,
        progress: Callable[[int, int, str], object] | None = None,
    ):
        self.folder, self.engine, self.sources, self.fresh = folder, engine, sources, fresh
        self.progress = progress or (lambda *_: None)
        self.seconds, self.reused = 0.0, 0

    def map(self, lab: Lab, function: Callable[..., xr.Dataset], cells: list[dict[str, Any]]) -> list[xr.Dataset]:
        tasks = [Task(function, lab, cell, self._place(lab, function, cell), words(cell)) for cell in cells]
        found: dict[int, xr.Dataset] = {}
        if not self.fresh:
            found = {number: kept for number, task in enumerate(tasks) if (kept := _kept(task.folder)) is not None}
        self.reused += len(found)
        left = [number for number in range(len(tasks)) if number not in found]
        self.progress(len(found), len(tasks), "")
        failed: list[str] = []
        answers = self.engine([tasks[number] for number in left], replace=self.fresh) if left else iter(())
        for done, (place, problem) in enumerate(answers, start=1):
            number = left[place]
            if problem:
                failed.append(f"{function.__name__}({tasks[number].words}): {problem}")
            else:
                found[number] = _read(tasks[number].folder)
            self.progress(len(tasks) - len(left) + done, len(tasks), tasks[number].words)
        if failed:
            raise CellError(f"{len(failed)} of {len(tasks)} cells failed, the others are kept: " + "; ".join(failed))
        self.seconds += sum(float(each.attrs.get("cell_seconds", 0)) for each in found.values())
        return [_without_seconds(found[number]) for number in range(len(tasks))]

    def _place(self, lab: Lab, function: Callable[..., xr.Dataset], cell: dict[str, Any]) -> Path:
        known = [self.sources, f"{function.__module__}:{function.__qualname__}", address(cell), lab.root, lab.device]
        return self.folder / hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]


def words(cell: Mapping[str, Any]) -> str:
    """A cell's arguments as people read them."""
    return ", ".join(f"{name}={plain(value)}" for name, value in cell.items())


def _kept(folder: Path) -> xr.Dataset | None:
    if not folder.is_dir():
        return None
    try:
        return read_dataset(folder)
    except InputError:  # damaged: done again
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _read(folder: Path) -> xr.Dataset:
    """Read a cell that another process may be replacing."""
    for _ in range(_ATTEMPTS):
        try:
            return read_dataset(folder)
        except InputError:
            time.sleep(0.1)
    return read_dataset(folder)


def _without_seconds(found: xr.Dataset) -> xr.Dataset:
    found.attrs.pop("cell_seconds", None)
    return found
