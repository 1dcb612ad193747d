"""Studies that run now, as their engines tell in small files."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from .outcomes import read_object
from .shelf import entries_of, inside

_FORGOTTEN = 24 * 3600  # seconds after which a run that says nothing counts as dead
_MOST = 50


def running(folders: Sequence[Path], known: Collection[str]) -> list[dict[str, Any]]:
    """What is running: id, cells done and in all, seconds since it began and since it last said something.

    Args:
        folders: of results; an engine tells in `.running/*.json` there.
        known: ids that have a page; others are left out.
    """
    now = time.time()
    found: list[dict[str, Any]] = []
    for file in (file for folder in folders for file in entries_of(folder / ".running") if inside(file, folder)):
        if file.suffix != ".json" or len(found) >= _MOST:
            continue
        try:
            told = read_object(file)
        except InputError:
            continue  # being written, or damaged: the next look tells
        done, total = _count(told.get("done")), _count(told.get("total"))
        begun, updated = (_seconds(told.get(name), now) for name in ("started", "updated"))
        if not isinstance(told.get("id"), str) or told["id"] not in known or updated > _FORGOTTEN:
            continue
        times = {"begun": round(min(begun, 10**9)), "silent": round(updated)}
        found.append({"id": told["id"], "done": min(done, total), "total": total, **times})
    return sorted(found, key=lambda each: (str(each["id"]), int(each["begun"])))


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 10**9 else 0


def _seconds(moment: object, now: float) -> float:
    """How long ago a moment was, given in seconds since 1970."""
    if isinstance(moment, bool) or not isinstance(moment, (int, float)) or not math.isfinite(moment):
        return 0.0
    return max(now - moment, 0.0)
