"""One claim on the page of its study: verdict, statement, a row of the forest plot, and every remark on it."""

from __future__ import annotations

import math

from ..catalogue import Claim
from .badges import badge
from .figures.forest import forest_row, measured, slug
from .numbers import amount, number
from .outcomes import ClaimOutcome
from .theme import text

_SIGNS = str.maketrans({"-": "−"})


def claim_item(registered: Claim, outcome: ClaimOutcome | None, run: bool) -> str:
    """An item of a list.

    Args:
        registered: the claim as the catalogue has it.
        outcome: what became of it.
        run: whether there is a result of its study.
    """
    shown = outcome or _pending(registered)
    verdict = badge(outcome.verdict) if outcome else badge("not in this result") if run else ""
    marks = [
        word
        for word, on in (
            ("negative control", registered.control),
            ("about time", registered.timing),
            ("GPU scale", registered.scale == "gpu"),
        )
        if on
    ]
    aside = "".join(f" <span class='badge'>{word}</span>" for word in marks)
    return (
        f"<li class='claim {slug(shown.verdict)}' id='claim-{text(registered.id)}'>\n"
        f"<h3>{verdict} {text(registered.statement)}{aside}</h3>\n"
        f"<div class='row'>{forest_row(shown)}</div>\n"
        f"<div class='said'>\n<p class='measured'>{_measured(shown)}</p>\n"
        f"{_remarks(registered, shown)}{_how(registered)}</div>\n</li>\n"
    )


def unregistered(claim: ClaimOutcome) -> Claim:
    """A claim of a result that the catalogue does not have, as if it had it."""
    why = "This claim is not in the catalogue."
    doubt = f"{claim.doubt} {why}".strip()
    return Claim(
        claim.id, claim.statement or claim.id, claim.observable, claim.unit, claim.expects, claim.source, doubt=doubt
    )


def _pending(claim: Claim) -> ClaimOutcome:
    return ClaimOutcome(claim.id, "", claim.statement, claim.observable, claim.unit, claim.expects)


def _measured(claim: ClaimOutcome) -> str:
    parts = []
    if not math.isnan(claim.estimate):
        parts.append(f"<strong>{text(measured(claim))}</strong>")
    parts.append(f"expected {text(_expects(claim.expects))}")
    if claim.n > 1 and claim.unit not in ("", "none"):
        parts.append(text(amount(claim.n, claim.unit.replace("_", " "))))
    return " · ".join(parts)


def _expects(expects: str) -> str:
    return expects.replace(">=", "≥").replace("<=", "≤").translate(_SIGNS)


def _remarks(registered: Claim, claim: ClaimOutcome) -> str:
    found = {
        "Why" if claim.verdict in ("not applicable", "failed") else "Reason": claim.reason,
        "Note": claim.note,
        "Amended": claim.amended or registered.amended or "",
        "Doubt": registered.doubt or claim.doubt,
    }
    others = [number(value) for value in claim.others if not math.isnan(value)]
    if others:
        found["Under other root seeds"] = ", ".join(others)
    if claim.expects != registered.expects:
        found["Changed since"] = (
            f"This result was held against {_expects(claim.expects) or 'nothing'}; the catalogue now expects "
            f"{_expects(registered.expects)}."
        )
    return "".join(f"<p class='remark'><b>{name}</b> {text(said)}</p>\n" for name, said in found.items() if said)


def _how(claim: Claim) -> str:
    rows = {
        "observable": claim.observable,
        "interval over": "" if claim.unit == "none" else claim.unit.replace("_", " "),
        "source": claim.source,
        "id": claim.id,
    }
    inside = "".join(f"<li>{name}: {text(value)}</li>\n" for name, value in rows.items() if value)
    return f"<details><summary>How it is measured</summary>\n<ul>{inside}</ul></details>\n"
