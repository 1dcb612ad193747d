"""The page of one entry of the catalogue: its claims with their verdicts, its figure, where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..catalogue import Entry, is_ready
from ..core.errors import InputError
from .badges import in_words, state_badge, tally
from .claim_item import claim_item, unregistered
from .figure_box import note, section, stored_figure_box
from .figure_file import read_figure
from .outcomes import Outcome, read_object
from .own import snippet
from .shelf import Shelf, inside
from .tables import Markup, table
from .theme import FIGURES, Live, page, text

_LONGEST = 300  # characters of a parameter


def study_page(entry: Entry, shelf: Shelf, outcome: Outcome | None, *, live: Live | None = None) -> str:
    """All that is known of an entry, with one of its results.

    Args:
        entry: of the catalogue.
        shelf: all its results.
        outcome: the one to show; `None` where there is none.
        live: for a page that follows what changes.
    """
    known, problems = _provenance(outcome)
    remarks = [*shelf.problems, *problems]
    drawn = outcome is not None and outcome.folder is not None
    body = [
        _header(entry, outcome),
        "<main>\n",
        "".join(note(remark) for remark in remarks),
        _claims(entry, outcome),
        _figure(entry, outcome) if outcome else "",
        section("Run it", "The same experiment here, and on what is yours.", snippet(entry)),
        _parameters(outcome, known) if outcome else "",
        _made(outcome, known) if outcome else "",
        _others(shelf, outcome) if outcome and len(shelf.outcomes) > 1 else "",
        "</main>\n",
    ]
    return page(
        f"{entry.title} – Phenoscope", "".join(body), styles=["study.css"], scripts=FIGURES if drawn else [], live=live
    )


def file_of(outcome: Outcome, shelf: Shelf) -> str:
    """The name of the page that shows a result."""
    if outcome is shelf.first or outcome.folder is None:
        return f"{outcome.id}.html"
    return f"{outcome.id}--{outcome.folder.name}.html"


def _header(entry: Entry, outcome: Outcome | None) -> str:
    paper = text(f"{entry.authors} · {entry.venue}")
    if entry.arxiv:
        link = f"https://arxiv.org/abs/{text(entry.arxiv)}"
        paper += f" · <a href='{link}' rel='noreferrer'>arXiv {text(entry.arxiv)}</a>"
    state = tally(outcome.counts) if outcome else state_badge("ready" if is_ready(entry) else "specified")
    return (
        "<header>\n<p class='back'><a href='index.html'>← All papers</a></p>\n"
        f"<h1>{text(entry.title)}</h1>\n<p class='paper'>{paper}</p>\n<p class='gist'>{text(entry.gist)}</p>\n{state}"
        "</header>\n"
    )


def _claims(entry: Entry, outcome: Outcome | None) -> str:
    found = {claim.id: claim for claim in outcome.claims} if outcome else {}
    items = "".join(claim_item(claim, found.pop(claim.id, None), outcome is not None) for claim in entry.claims)
    items += "".join(claim_item(unregistered(claim), claim, True) for claim in found.values())
    lead = "What each claim expects was registered before its experiment was run."
    key = ""
    if outcome:
        if outcome.preset == "smoke":
            key += note("this is a smoke run: it shows that the study runs, and judges nothing")
        if outcome.changed:
            key += note(f"run with other parameters than the paper's study: {', '.join(outcome.changed)}")
        key += (
            "<p class='key' aria-hidden='true'><span class='k-band'>expected</span><span class='k-mark'>estimate, with "
            "its 95 % interval where it has one</span><span class='k-other'>under another root seed</span></p>\n"
        )
    return section("The claims", lead, f"{key}<ul class='claims'>\n{items}</ul>")


def _figure(entry: Entry, outcome: Outcome) -> str:
    if outcome.folder is None:
        drawn = note(f"the figure is not kept with this result; `phenoscope run {entry.id}` makes it again")
    elif not _kept(file := outcome.folder / "figure.json"):
        drawn = note(f"this result has no figure; `phenoscope run {entry.id} --fresh` makes it again")
    else:
        drawn = stored_figure_box("figure-study", f"Figure of {entry.title}", lambda: read_figure(file))
    return section("The figure", "Drag over a part to enlarge it, double-click to go back.", drawn)


def _provenance(outcome: Outcome | None) -> tuple[dict[str, Any], list[str]]:
    if outcome is None or outcome.folder is None or not _kept(file := outcome.folder / "provenance.json"):
        return {}, []
    try:
        return read_object(file), []
    except InputError as error:
        return {}, [str(error)]


def _kept(file: Path) -> bool:
    """Whether a file lies in its folder, and is no link to somewhere else."""
    return file.is_file() and inside(file, file.parent)


def _parameters(outcome: Outcome, known: Mapping[str, Any]) -> str:
    parameters = known.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        return ""
    rows = [[name, _value(value), "changed" if name in outcome.changed else ""] for name, value in parameters.items()]
    head = ["parameter", "value", ""]
    if not outcome.changed:
        head, rows = head[:2], [row[:2] for row in rows]
    lead = f"Of the preset {outcome.preset}." if outcome.preset else "As the experiment had them."
    return section("Parameters", lead, table(head, rows))


def _made(outcome: Outcome, known: Mapping[str, Any]) -> str:
    versions = outcome.versions or known.get("versions")
    facts = {
        "preset": outcome.preset,
        "date": _date(outcome),
        "root seed": outcome.seed,
        "time": duration(outcome.seconds),
        "device": outcome.device,
        "machine": known.get("machine"),
        "platform": known.get("platform"),
        "engine": known.get("engine"),
        "processes": known.get("jobs"),
        "key": known.get("key"),
        "made with": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else None,
    }
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{text(_value(value))}</dd></div>\n"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return section("Provenance", "Where these numbers come from.", f"<dl class='facts'>\n{rows}</dl>")


def _others(shelf: Shelf, shown: Outcome) -> str:
    rows = [
        [
            _link(each, shelf, shown),
            _date(each),
            each.seed,
            ", ".join(each.changed) or "–",
            in_words(each.counts),
        ]
        for each in shelf.outcomes
    ]
    return section(
        "All results", "Of this study, the one shown first on top.",
        table(["preset", "date", "root seed", "changed", "verdicts"], rows),
    )  # fmt: skip


def _link(outcome: Outcome, shelf: Shelf, shown: Outcome) -> str:
    name = outcome.preset or "unknown"
    if outcome is shown:
        return f"{name} (this one)"
    if outcome is not shelf.first and outcome.folder is None:
        return name
    return Markup(f"<a href='{text(file_of(outcome, shelf))}'>{text(name)}</a>")


def _date(outcome: Outcome) -> str:
    return outcome.moment.strftime("%Y-%m-%d %H:%M %Z").strip() if outcome.moment else outcome.date


def duration(seconds: float) -> str | None:
    """Seconds as people say them."""
    if not 0 <= seconds < 1e9:
        return None
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _value(value: object) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
