"""Which entries have a study, and the last verdicts found on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from .entry import Entry


class State(NamedTuple):
    """Of an entry: "specified" (no study yet), "ready" or "run"; and its last result, as `verdict.json` has it."""

    status: str
    last: dict[str, Any] | None


def module_of(found: Entry) -> str:
    """The module in which an entry's study stands, whether or not there is one."""
    return f"phenoscope.studies.{found.section}.{found.id.replace('-', '_')}"


def is_ready(found: Entry) -> bool:
    """Whether there is a study; importing nothing."""
    file = files("phenoscope") / "studies" / found.section / f"{found.id.replace('-', '_')}.py"
    return file.is_file()


def states(found: Iterable[Entry], results: Path) -> dict[str, State]:
    """The state of every entry; damaged files count as none.

    Args:
        found: entries.
        results: the folder of results.
    """
    known = {}
    for each in found:
        last = last_result(results / each.id) if is_ready(each) else None
        known[each.id] = State("specified" if not is_ready(each) else "run" if last else "ready", last)
    return known


def last_result(folder: Path) -> dict[str, Any] | None:
    """The newest verdicts in a study's folder; those of smoke runs only if there are no others."""
    read = [verdicts for file in folder.glob("[!.]*/verdict.json") if (verdicts := _read(file))]
    return max(read, key=lambda each: (each.get("preset") != "smoke", str(each.get("date"))), default=None)


def tally(verdicts: dict[str, Any]) -> str:
    """Verdicts in few words: `4 hold, 1 refuted`."""
    counts = Counter(str(claim.get("verdict")) for claim in verdicts["claims"])
    if counts["holds"] > 1:
        counts["hold"] = counts.pop("holds")
    order = ("hold", "holds", "refuted", "inconclusive")
    first = [word for word in order if counts[word]]
    return ", ".join(f"{counts[word]} {word}" for word in [*first, *(w for w in counts if w not in order)])


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fine = isinstance(content, dict) and isinstance(content.get("claims"), list)
    return content if fine and all(isinstance(claim, dict) for claim in content["claims"]) else None
