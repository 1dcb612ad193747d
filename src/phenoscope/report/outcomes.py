"""A study's result as `verdict.json` has it, checked: whatever lies on disk may be damaged, or written by anyone."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import InputError

VERDICTS = (
    "holds",
    "refuted",
    "inconclusive",
    "failed",
    "not applicable",
    "not run at this scale",
    "not judged",
)
_LONGEST = 4_000  # characters of one text that a page shows
_LARGEST = 32_000_000  # bytes of one file


@dataclasses.dataclass(frozen=True)
class ClaimOutcome:
    """What became of one claim; numbers that are not there are NaN, texts that are not there are empty.

    Attributes:
        others: the value at three other root seeds, of a claim without a unit.
        reason: why it does not apply, or what failed.
        note: why it does not hold, by the study's authors.
    """

    id: str
    verdict: str
    statement: str
    observable: str
    unit: str
    expects: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    others: tuple[float, ...] = ()
    source: str = ""
    reason: str = ""
    note: str = ""
    doubt: str = ""
    amended: str = ""
    scale: str = ""
    control: bool = False
    timing: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One result of a study.

    Attributes:
        moment: when it was made; `None` where the date cannot be read.
        changed: the parameters that were not the preset's.
        folder: with the figure and the provenance, where they were kept.
    """

    id: str
    preset: str
    seed: str
    seconds: float
    device: str
    date: str
    moment: datetime | None
    versions: dict[str, str]
    changed: tuple[str, ...]
    claims: tuple[ClaimOutcome, ...]
    folder: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> how many claims have it, in the order of `VERDICTS`."""
        found = [claim.verdict for claim in self.claims]
        return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def read_outcome(file: Path, id: str, folder: Path | None = None) -> Outcome:
    """What a `verdict.json` says about the study `id`.

    Raises:
        InputError: it cannot be read, or holds something else; the message names the file and what is wrong.
    """
    content = read_object(file)
    if content.get("id") != id:
        raise InputError(f"{file} is no result of {id}: its id is {_text(content.get('id'))[:80]!r}")
    claims, changed = content.get("claims"), content.get("changed")
    if not isinstance(claims, list) or not claims:
        raise InputError(f"{file} is damaged: it has no claims")
    versions = content.get("versions")
    date = _text(content.get("date"))
    return Outcome(
        id,
        preset=_text(content.get("preset")),
        seed=_text(content.get("seed")),
        seconds=_number(content.get("seconds")),
        device=_text(content.get("device")),
        date=date,
        moment=_moment(date),
        versions={_text(k): _text(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        changed=tuple(map(_text, changed)) if isinstance(changed, list) else (),
        claims=tuple(_claim(claim, file) for claim in claims),
        folder=folder,
    )


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object from disk.

    Raises:
        InputError: it cannot be read, is too large for a page, or holds something else.
    """
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file} is too large to be shown: over {_LARGEST // 1_000_000} MB")
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is damaged: it holds no JSON object")
    return content


def _claim(fields: object, file: Path) -> ClaimOutcome:
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        raise InputError(f"{file} is damaged: a claim has no id")
    id, verdict = _text(fields["id"]), fields.get("verdict")
    if verdict not in VERDICTS:
        raise InputError(f"{file} is damaged: claim {id[:80]!r} has the verdict {_text(verdict)[:80]!r}")
    texts = ("statement", "observable", "unit", "expects", "source", "reason", "note", "doubt", "amended", "scale")
    others, n = fields.get("others"), fields.get("n")
    return ClaimOutcome(
        id=id,
        verdict=verdict,
        estimate=_number(fields.get("estimate")),
        low=_number(fields.get("low")),
        high=_number(fields.get("high")),
        n=n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10**12 else 0,
        others=tuple(_number(each) for each in others[:12]) if isinstance(others, list) else (),
        control=fields.get("control") is True,
        timing=fields.get("timing") is True,
        **{name: _text(fields.get(name)) for name in texts},
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value if isinstance(value, (str, int, float)) else json.dumps(value))[:_LONGEST]


def _number(value: object) -> float:
    if value in ("Infinity", "-Infinity"):
        return math.inf if value == "Infinity" else -math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _moment(date: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
