"""Verdicts as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from .figures.forest import slug
from .theme import text

SIGNS = {"holds": "✓", "refuted": "✕", "inconclusive": "?", "failed": "!"}


def badge(verdict: str) -> str:
    """One claim's verdict; its sign says it where colors do not."""
    return f"<span class='badge {slug(verdict)}'>{_sign(verdict)}{text(verdict)}</span>"


def tally(counts: Mapping[str, int]) -> str:
    """How many claims have which verdict: "4 hold, 1 refuted"."""
    badges = "".join(
        f"<span class='badge {slug(verdict)}'>{_sign(verdict)}{count} {text(_verb(verdict, count))}</span> "
        for verdict, count in counts.items()
    )
    return f"<p class='badges'>{badges}</p>\n"


def in_words(counts: Mapping[str, int]) -> str:
    """The same without signs: "4 hold, 1 refuted"."""
    return ", ".join(f"{count} {_verb(verdict, count)}" for verdict, count in counts.items())


def state_badge(state: str) -> str:
    """That of an entry without a result: "ready", "specified"."""
    return f"<p class='badges'><span class='badge'>{text(state)}</span></p>\n"


def _verb(verdict: str, count: int) -> str:
    return "hold" if verdict == "holds" and count > 1 else verdict


def _sign(verdict: str) -> str:
    sign = SIGNS.get(verdict)
    return f"<span aria-hidden='true'>{sign}</span> " if sign else ""
