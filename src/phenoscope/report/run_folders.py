"""Recorded runs in folders, by the name that a page gives them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError
from ..record.run import Run, open_run
from ..record.store import is_run
from .shelf import entries_of, inside

_DEEPEST = 3  # folders below the given one


def run_folders(places: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Runs that stand at these places or in folders there, and a sentence on each place without one.

    What is hidden is left out, and so is a folder that is a link to somewhere outside its place.

    Args:
        places: folders of runs, or of folders with runs.
    """
    found: dict[str, Path] = {}
    problems = []
    for place in places:
        folders = [folder for folder in _below(place, _DEEPEST) if inside(folder, place)]
        for folder in folders:
            name = folder.relative_to(place).as_posix() if folder != place else place.resolve().name
            number, unique = 1, name
            while unique in found:
                number += 1
                unique = f"{name} ({number})"
            found[unique] = folder
        if not folders:
            problems.append(f"{place} holds no recorded run yet")
    return found, problems


def open_whole(folder: Path) -> Run:
    """A run all of whose arrays can be read, and of which no part is a link to somewhere else.

    Raises:
        InputError: it is damaged, or holds such a link.
    """
    for path, names, files in os.walk(folder):
        for entry in (Path(path, name) for name in (*names, *files)):
            if entry.is_symlink() and not inside(entry, folder):
                raise InputError(f"{entry} is a link to outside the run, which is not shown")
    run = open_run(folder)
    try:
        _ = run.means, run.scalars
        for name in run:
            run.average(name)
    except Exception as error:  # whatever damaged arrays make zarr raise
        raise InputError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
    return run


def _below(folder: Path, depth: int) -> list[Path]:
    if is_run(folder):
        return [folder]
    if depth == 0 or not folder.is_dir():
        return []
    return [run for entry in entries_of(folder) if entry.is_dir() for run in _below(entry, depth - 1)]
