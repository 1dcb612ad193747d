"""Results on disk: which there are of a study, and which of them its page shows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..core.errors import InputError
from .outcomes import Outcome, read_outcome

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_HOME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # it becomes part of a page's name
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclasses.dataclass(frozen=True)
class Shelf:
    """The results of one study.

    Attributes:
        outcomes: the one to show first before the others: judged before smoke runs, the presets' own parameters before
            changed ones, then the newest.
        problems: a sentence for each file that could not be used.
    """

    outcomes: tuple[Outcome, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def first(self) -> Outcome | None:
        return self.outcomes[0] if self.outcomes else None


def read_shelf(folders: Sequence[Path], id: str) -> Shelf:
    """All results of a study.

    Args:
        folders: each with `<id>/<preset>-<key>/verdict.json`, as `phenoscope run` keeps them, or with `<id>.json`.
    """
    outcomes, problems = [], []
    for verdict, home in verdict_files(folders, id):
        try:
            outcomes.append(read_outcome(verdict, id, home))
        except InputError as error:
            problems.append(str(error))
    outcomes.sort(key=_rank, reverse=True)
    return Shelf(tuple(outcomes), tuple(problems))


def verdict_files(folders: Sequence[Path], id: str) -> Iterator[tuple[Path, Path | None]]:
    """Verdicts of a study, each with the folder in which its figure may lie; nothing that a link leads outside to."""
    for folder in folders:
        alone = folder / f"{id}.json"
        if alone.is_file() and inside(alone, folder):
            yield alone, None
        for home in entries_of(folder / id):
            verdict = home / "verdict.json"
            if _HOME.fullmatch(home.name) and verdict.is_file() and inside(verdict, folder):
                yield verdict, home


def known_ids(folders: Sequence[Path]) -> set[str]:
    """Every id that these folders hold a result of, whether or not the catalogue has it."""
    found = [entry for folder in folders for entry in entries_of(folder)]
    names = {entry.stem for entry in found if entry.suffix == ".json"}
    names |= {entry.name for entry in found if any((home / "verdict.json").is_file() for home in entries_of(entry))}
    return {name for name in names if _ID.fullmatch(name)}


def inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files; nothing if it is none."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _rank(outcome: Outcome) -> tuple[bool, bool, datetime, bool]:
    return outcome.preset != "smoke", not outcome.changed, outcome.moment or _EPOCH, outcome.folder is not None
