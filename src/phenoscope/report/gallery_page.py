"""The index of the gallery: a card for every paper of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..catalogue import SECTIONS, Entry, is_ready
from .badges import state_badge, tally
from .figure_box import note
from .figures.forest import forest_strip, slug
from .numbers import amount
from .outcomes import VERDICTS
from .shelf import Shelf
from .theme import Live, page, text

_CHOICES = {
    "studied": "with a result",
    "all-hold": "every judged claim holds",
    **{slug(verdict): f"a claim: {verdict}" for verdict in VERDICTS},
    "ready": "ready to run",
    "specified": "specified, not built yet",
}
_JUDGED = ("holds", "refuted", "inconclusive")


def gallery_page(
    entries: Sequence[Entry],
    shelves: Mapping[str, Shelf],
    *,
    runs: Mapping[str, str],
    problems: Sequence[str] = (),
    live: Live | None = None,
) -> str:
    """Cards with filters, and links to recorded runs.

    Args:
        entries: of the catalogue.
        shelves: their results by id.
        runs: page of a recorded run -> its name.
        problems: sentences on what could not be used.
        live: for a page that follows what changes.
    """
    tags = {entry.id: _tags(entry, shelves[entry.id]) for entry in entries}
    sections = "".join(_section(name, entries, shelves, tags) for name in SECTIONS)
    body = (
        "<header>\n<h1>Phenomena of deep learning, put to the test</h1>\n"
        "<p class='lead'>Papers whose claims were registered before any experiment was run, and what the experiments "
        f"said.</p>\n{_facts(entries, shelves)}</header>\n<main>\n"
        + "".join(note(problem) for problem in problems)
        + _runs(runs)
        + _filter(entries, tags)
        + "<p class='note' id='nothing' hidden>No paper matches. Take a filter back, or search for another word.</p>\n"
        + f"{sections}</main>\n"
    )
    return page("Phenoscope – phenomena of deep learning", body, styles=["study.css"], scripts=["cards.js"], live=live)


def _facts(entries: Sequence[Entry], shelves: Mapping[str, Shelf]) -> str:
    counts: dict[str, int] = {}
    studied = 0
    for entry in entries:
        if outcome := shelves[entry.id].first:
            studied += 1
            for verdict, count in outcome.counts.items():
                counts[verdict] = counts.get(verdict, 0) + count
    claims = sum(len(entry.claims) for entry in entries)
    said = f"{amount(len(entries), 'paper')}, {amount(claims, 'claim')}; {amount(studied, 'study')} run so far."
    ordered = {verdict: counts[verdict] for verdict in VERDICTS if verdict in counts}
    return f"<p class='paper'>{said}</p>\n" + (tally(ordered) if counts else "")


def _runs(runs: Mapping[str, str]) -> str:
    if not runs:
        return ""
    links = "".join(
        f"<li><a href='{text(file)}'><strong>{text(name)}</strong></a></li>\n" for file, name in runs.items()
    )
    return (
        "<section>\n<h2>Recorded runs</h2>\n<p class='lead'>How the filters of networks evolved while they trained; "
        f"<a href='runs/index.html'>side by side</a>.</p>\n<ul class='runs'>\n{links}</ul>\n</section>\n"
    )


def _filter(entries: Sequence[Entry], tags: Mapping[str, list[str]]) -> str:
    by_section = {name: sum(entry.section == name for entry in entries) for name in SECTIONS}
    by_tag = {tag: sum(tag in each for each in tags.values()) for tag in _CHOICES}
    sections = "".join(f"<option value='{name}'>{name} ({count})</option>" for name, count in by_section.items())
    verdicts = "".join(
        f"<option value='{tag}'>{text(_CHOICES[tag])} ({count})</option>" for tag, count in by_tag.items() if count
    )
    return (
        "<form class='filter' role='search' aria-label='Papers' hidden>\n"
        "<label class='wide'><span>Search</span><input type='search' name='text' autocomplete='off' "
        "placeholder='title, author, venue, word'></label>\n"
        f"<label><span>Section</span><select name='section'><option value=''>all</option>{sections}</select></label>\n"
        f"<label><span>Verdict</span><select name='verdict'><option value=''>any</option>{verdicts}</select></label>\n"
        "<button type='reset'>Clear</button>\n<p class='count' role='status'></p>\n</form>\n"
    )


def _section(name: str, entries: Sequence[Entry], shelves: Mapping[str, Shelf], tags: Mapping[str, list[str]]) -> str:
    order = {"studied": 0, "ready": 1, "specified": 2}
    here = sorted((entry for entry in entries if entry.section == name), key=lambda entry: order[tags[entry.id][0]])
    cards = "".join(_card(entry, shelves[entry.id], tags[entry.id]) for entry in here)
    if not cards:
        return ""
    return (
        f"<section class='papers' data-section='{name}'>\n<h2>{name.capitalize()}</h2>\n"
        f"<ul class='cards'>\n{cards}</ul>\n</section>\n"
    )


def _card(entry: Entry, shelf: Shelf, tags: Sequence[str]) -> str:
    outcome = shelf.first
    if outcome:
        shown = forest_strip(outcome.claims) + tally(outcome.counts)
    else:
        shown = f"<p class='paper'>{amount(len(entry.claims), 'claim')} registered</p>\n" + state_badge(tags[0])
    damaged = f"<p class='problem'>{text(shelf.problems[0])}</p>\n" if shelf.problems else ""
    return (
        f"<li class='card' data-tags='{' '.join(tags)}' data-id='{entry.id}'>\n"
        f"<h3><a href='{entry.id}.html'>{text(entry.title)}</a></h3>\n"
        f"<p class='paper'>{text(entry.authors)} · {text(entry.venue)}</p>\n"
        f"<p class='gist'>{text(entry.gist)}</p>\n{damaged}{shown}</li>\n"
    )


def _tags(entry: Entry, shelf: Shelf) -> list[str]:
    """What the filter knows an entry by; that of its state first."""
    outcome = shelf.first
    if outcome is None:
        return ["ready" if is_ready(entry) else "specified"]
    judged = [verdict for verdict in outcome.counts if verdict in _JUDGED]
    return ["studied", *(["all-hold"] if judged == ["holds"] else []), *map(slug, outcome.counts)]
