"""Results on disk as `phenoscope run` leaves them, for tests of the pages: real files, of given content."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from phenoscope.catalogue import Claim, entry
from phenoscope.lab import Expectation

VERSIONS = {"phenoscope": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}


def claim_facts(claim: Claim, verdict: str, **given: Any) -> dict[str, Any]:
    """A claim of `verdict.json` whose numbers suit its verdict, unless they are given."""
    expected = Expectation.parse(claim.expects)
    bound = expected.low if math.isfinite(expected.low) else expected.high
    middle = (expected.low + expected.high) / 2 if math.isfinite(expected.low + expected.high) else None
    away = (abs(bound) or 1) / 2
    inward = 1 if math.isfinite(expected.low) else -1
    there = middle if middle is not None else bound + inward * away
    numbers = {
        "holds": (there, there - away / 9, there + away / 9),
        "refuted": (bound - inward * away, bound - inward * away * 1.2, bound - inward * away * 0.8),
        "inconclusive": (bound, bound - away / 3, bound + away / 3),
        "not judged": (there, there, there),
    }.get(verdict, (None, None, None))
    if claim.unit == "none" and numbers[0] is not None:
        numbers = (numbers[0],) * 3
    facts = {
        **{name: getattr(claim, name) for name in ("id", "statement", "observable", "unit", "expects", "source")},
        **{name: getattr(claim, name) for name in ("scale", "control", "timing", "doubt", "amended")},
        "verdict": verdict,
        "estimate": numbers[0],
        "low": numbers[1],
        "high": numbers[2],
        "n": 0 if numbers[0] is None else 1 if claim.unit == "none" else 5,
        "reason": "",
        "note": "",
        "others": None,
    }
    return facts | given


def verdict_facts(id: str, verdicts: list[str], **given: Any) -> dict[str, Any]:
    """What `verdict.json` holds: the verdicts in the order of the registered claims, the last one for the rest."""
    claims = entry(id).claims
    several = verdicts + verdicts[-1:] * len(claims)
    facts = {
        "id": id,
        "preset": "default",
        "seed": 0,
        "seconds": 47.3,
        "device": "cpu",
        "machine": "2 cores of some processor",
        "versions": VERSIONS,
        "date": "2025-11-20T10:00:00+00:00",
        "changed": [],
        "claims": [claim_facts(claim, verdict) for claim, verdict in zip(claims, several, strict=False)],
    }
    return facts | given


def figure() -> go.Figure:
    """Two lines over an axis, one of them with marks."""
    x = np.linspace(0, 6, 40)
    drawn = go.Figure()
    drawn.add_scatter(x=x, y=np.sin(x), name="pruned")
    drawn.add_scatter(x=x, y=np.cos(x), name="dense", mode="markers")
    return drawn.update_layout(xaxis_title="density", yaxis_title="accuracy")


def write_result(
    results: Path, facts: dict[str, Any], key: str = "0123456789ab", drawn: Any = None, **known: Any
) -> Path:
    """A whole result; `drawn` is its figure, or other text in place of one, or False for none."""
    home = results / facts["id"] / f"{facts['preset']}-{key}"
    home.mkdir(parents=True)
    (home / "verdict.json").write_text(json.dumps(facts))
    parameters = {"densities": [0.1, 0.05, 0.02], "seeds": 5, "steps": 1200, "model": "phenoscope.models.mlp"}
    provenance = {"parameters": parameters, "versions": VERSIONS, "platform": "Linux", "key": key, "engine": "local"}
    (home / "provenance.json").write_text(json.dumps(provenance | known))
    if drawn is not False:
        (home / "figure.json").write_text(drawn if isinstance(drawn, str) else (drawn or figure()).to_json())
    return home
