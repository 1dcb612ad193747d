"""What a run of a study gives: data, judged claims, figure; and how it lies on disk."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..catalogue import Claim
from ..core.errors import InputError
from .store import into_place, read_dataset, strict, write_dataset, write_json
from .study import Study

if TYPE_CHECKING:
    import plotly.graph_objects


@dataclasses.dataclass(frozen=True)
class JudgedClaim:
    """A registered claim and what came of it.

    Attributes:
        claim: as registered.
        verdict: "holds", "refuted", "inconclusive", "not applicable", "not run at this scale", "not judged" (a smoke
            run) or "failed" (its observable could not be computed).
        estimate, low, high: the value and its 95 % interval; `None` where there is none.
        n: how many values of the unit there were.
        reason: why the claim does not apply, or could not be judged.
        note: why it does not hold, by who wrote the study.
        others: of a claim without a unit, the value under other root seeds.
    """

    claim: Claim
    verdict: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""
    note: str = ""
    others: tuple[float, ...] | None = None

    def facts(self) -> dict[str, Any]:
        """As one flat table, for JSON."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "claim"}
        return dataclasses.asdict(self.claim) | own


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A study's result.

    Attributes:
        study: which.
        preset: "smoke", "default" or "gpu".
        data: what the experiment gave.
        claims: judged.
        provenance: parameters, seed, versions, machine, device, seconds, date.
        path: its folder.
    """

    study: Study
    preset: str
    data: xr.Dataset
    claims: tuple[JudgedClaim, ...]
    provenance: dict[str, Any]
    path: Path

    def figure(self) -> plotly.graph_objects.Figure:
        """The study's figure of this result."""
        if self.study.draw is None:
            raise InputError(f"study {self.study.id} has no figure")
        return self.study.draw(self.data)

    def facts(self) -> dict[str, Any]:
        """What `phenoscope run ID --json` prints: strict JSON, infinite numbers as text."""
        known = self.provenance
        names = ("seed", "seconds", "device", "machine", "versions", "date", "changed")
        about = {"id": self.study.id, "preset": self.preset} | {name: known.get(name) for name in names}
        return strict(about | {"claims": [claim.facts() for claim in self.claims]})

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (c.claim.statement, *row(c))) + "</tr>"
            for c in self.claims
        )
        head = "".join(f"<th>{name}</th>" for name in ("claim", "verdict", "estimate", "95 % interval", "expected"))
        return f"<p><b>{html.escape(self.study.entry.title)}</b>, preset {self.preset}</p><table>{head}{rows}</table>"


def row(judged: JudgedClaim) -> tuple[str, str, str, str]:
    """Verdict, estimate, interval and expectation of a claim, as people read them."""
    estimate = "" if judged.estimate is None else f"{judged.estimate:.4g}"
    has_interval = judged.n > 1 and judged.low is not None and judged.high is not None
    interval = f"{judged.low:.4g} to {judged.high:.4g} (n = {judged.n})" if has_interval else ""
    return judged.verdict, estimate, interval, judged.claim.expects


def save(result: Result) -> None:
    """Put a result in its folder, whole: data, verdicts, provenance, figure."""
    with into_place(result.path, replace=True) as folder:
        write_dataset(folder / "result.zarr", result.data)
        write_json(folder / "verdict.json", result.facts())
        write_json(folder / "provenance.json", result.provenance)
        (folder / "figure.json").write_text(str(result.figure().to_json()), encoding="utf-8")


def stored(path: Path) -> tuple[xr.Dataset, dict[str, Any]] | None:
    """Data and provenance of a result on disk; `None` if there is none, or it is damaged and must be made again."""
    if not path.is_dir():
        return None
    try:
        known = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
        return (read_dataset(path / "result.zarr"), known) if isinstance(known, dict) else None
    except (OSError, ValueError):  # InputError and JSONDecodeError are ValueErrors
        return None
