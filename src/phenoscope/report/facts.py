"""What a run is, as rows of a table."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..record.run import Run
from .tables import percent, whole


def facts(run: Run) -> dict[str, str]:
    """Name of a fact -> its value as plain text; only those that the run knows."""
    steps = run.means["step"].to_numpy()
    tau = [f"{value:.3g}" for value in sorted(set(run.thresholds.values()))]
    found: dict[str, Any] = {
        "model": run.metadata.get("model"),
        "size": f"{len(run)} layers, {whole(sum(map(len, run.layers.values())))} filters",
        "updates between records": run.metadata.get("every"),
        "records": f"{whole(len(steps))}, steps {steps[0]} to {steps[-1]}" if len(steps) else "none yet",
        "gaps": int(run.means["gap"].sum()) or None,
        "threshold τ": " to ".join(dict.fromkeys((tau[0], tau[-1]))) if tau else None,
        "axes of the weights": "assumed: no model was given" if run.metadata.get("axes") == "assumed" else None,
        "begun": _moment(run.metadata.get("created")),
        "made with": _versions(run.metadata.get("versions")),
    }
    for name, values in list(run.scalars.data_vars.items())[:12]:
        there = values.to_numpy()[np.isfinite(values.to_numpy())]
        if len(there):
            found[f"last {name}"] = f"{there[-1]:.4g}"
    accuracy = summary(run.path).get("accuracy")
    if isinstance(accuracy, (int, float)) and math.isfinite(accuracy):
        found["accuracy on held-out data"] = percent(accuracy)
    return {name: str(value) for name, value in found.items() if value is not None}


def notes(run: Run) -> list[str]:
    """Sentences that came with the run."""
    given = summary(run.path).get("notes")
    return [str(each) for each in given] if isinstance(given, list) else []


def summary(path: Path) -> dict[str, Any]:
    """`summary.json` of a run; empty where there is none that can be read."""
    try:
        value = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _moment(value: object) -> str | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return str(value)


def _versions(value: object) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value) if value else None
