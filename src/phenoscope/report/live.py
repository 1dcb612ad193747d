"""The gallery while things change: pages made when they are asked for, from what lies on disk at that moment.

A page is found by its name among those that there are; no part of an address ever becomes a path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..catalogue import entries, is_ready
from ..core.errors import InputError
from .figure_box import note
from .gallery import SHARED, folder_problems, study_pages
from .gallery_page import gallery_page
from .index_page import index_page
from .run_folders import open_whole, run_folders
from .run_page import run_page
from .run_report import page_names
from .running import running
from .shelf import read_shelf, verdict_files
from .theme import FIGURES, Live, page, scripts

_SECONDS_OF_A_LOOK = 0.5  # how long what was seen on disk counts as how it is


@dataclasses.dataclass(frozen=True)
class _Look:
    """What lies on disk.

    Attributes:
        versions: page -> what changes when the files change from which it is made; an entry's id stands for its pages.
        runs: page of a run -> its name and folder.
    """

    at: float
    versions: dict[str, str]
    runs: dict[str, tuple[str, Path]]
    problems: list[str]


class LiveSite:
    """Pages by name, each kept until what it shows has changed.

    Args:
        results, runs: folders, as for `gallery`.
    """

    def __init__(self, results: Sequence[Path], runs: Sequence[Path]) -> None:
        self._results, self._runs = results, runs
        self._catalogue = {entry.id: entry for entry in entries()}
        self._shared = scripts([*SHARED, "live.js"])
        self._made: dict[str, tuple[str, dict[str, str]]] = {}
        self._lock = threading.RLock()
        self._look: _Look | None = None

    def get(self, name: str) -> str | None:
        """A file of the site; `None` if there is none of that name."""
        shared = name.removeprefix("runs/")
        if shared in self._shared and (shared == name or shared in (*FIGURES, "live.js")):
            return self._shared[shared]
        if shared == "live.json":
            return self.state()
        with self._lock:
            look = self._now()
            id = name.removesuffix(".html").partition("--")[0]
            key = id if id in self._catalogue else name
            if key not in look.versions:
                return None
            version, pages = self._made.get(key, ("", {}))
            if not pages or version != look.versions[key]:
                version = look.versions[key]
                pages = self._make(key, Live(key, version), look)
                self._made[key] = version, pages
            return pages.get(name)

    def state(self) -> str:
        """The versions of all pages and what is running, as JSON for the pages that ask."""
        with self._lock:
            versions = self._now().versions
        told: dict[str, Any] = {"versions": versions, "running": running(self._results, set(self._catalogue))}
        return json.dumps(told)

    def _now(self) -> _Look:
        if self._look is None or time.monotonic() - self._look.at > _SECONDS_OF_A_LOOK:
            self._look = self._see()
        return self._look

    def _see(self) -> _Look:
        versions = {}
        for id, entry in self._catalogue.items():
            homes = verdict_files(self._results, id)
            files = [file for verdict, home in homes for file in (verdict, *_beside(home))]
            versions[id] = f"{_stamp(files)}{'+' if is_ready(entry) else ''}"
        folders, problems = run_folders(self._runs)
        names = page_names(list(folders))
        runs = {f"runs/{names[name]}": (name, folder) for name, folder in folders.items()}
        problems = [*folder_problems(self._results, list(self._catalogue.values())), *problems]
        versions["index.html"] = _digest([*versions.values(), *runs, *problems])
        if runs:
            versions |= {file: _stamp(_run_files(folder)) for file, (_, folder) in runs.items()}
            versions["runs/index.html"] = _digest(versions[file] for file in runs)
        return _Look(time.monotonic(), versions, runs, problems)

    def _make(self, key: str, live: Live, look: _Look) -> dict[str, str]:
        if key in self._catalogue:
            return study_pages(self._catalogue[key], read_shelf(self._results, key), live=live)
        if key == "index.html":
            shelves = {id: read_shelf(self._results, id) for id in self._catalogue}
            names = {file: name for file, (name, _) in look.runs.items()}
            every = list(self._catalogue.values())
            return {key: gallery_page(every, shelves, runs=names, problems=look.problems, live=live)}
        if key == "runs/index.html":
            return {key: self._side_by_side(look, live)}
        name, folder = look.runs[key]
        try:
            return {key: run_page(name, open_whole(folder), live=live)}
        except InputError as error:
            return {key: page(name, note(str(error)), live=live)}

    def _side_by_side(self, look: _Look, live: Live) -> str:
        opened, remarks = {}, []
        for file, (name, folder) in look.runs.items():
            try:
                opened[file.removeprefix("runs/")] = name, open_whole(folder)
            except InputError as error:
                remarks.append(str(error))
        if not opened:
            return page("Recorded runs", "".join(map(note, remarks)), live=live)
        return index_page(opened, home="../index.html", remarks=remarks, live=live)


def _beside(home: Path | None) -> list[Path]:
    return [home / "figure.json", home / "provenance.json"] if home else []


def _run_files(folder: Path) -> list[Path]:
    known = [folder / name for name in ("run.json", "state.json", "summary.json", "image.npy", "final.safetensors")]
    return [*known, *sorted(folder.glob("journal-*.bin")), *sorted((folder / "ablation").glob("*.json"))]


def _stamp(files: Iterable[Path]) -> str:
    """What changes when one of the files does; empty where there is none."""
    seen = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        seen.append(f"{file}\n{stat.st_mtime_ns}\n{stat.st_size}")
    return _digest(seen) if seen else ""


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
