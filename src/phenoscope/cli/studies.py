"""list, show: the catalogue on the terminal. `list` loads no torch; `show` does where there is a study."""

from __future__ import annotations

import dataclasses
import json as json_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..catalogue import Claim, Entry, State, entries, entry, is_ready, states, tally
from ..core.errors import InputError

STATUSES = ("specified", "ready", "run")


def list_entries(section: str | None, status: str | None, results: Path, *, json: bool) -> None:
    """Every entry of the catalogue, or of one section or status, with its state."""
    if status is not None and status not in STATUSES:
        raise InputError(f"--status {status}: it is one of {', '.join(STATUSES)}")
    known = states(entries(section), results)
    # What can be run includes what was.
    wanted = {None: STATUSES, "ready": ("ready", "run")}.get(status, (status,))
    found = [each for each in entries(section) if known[each.id].status in wanted]
    if json:
        print(json_module.dumps([_row(each, known[each.id]) for each in found], indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "section", "paper"):
        table.add_column(column, no_wrap=column != "paper")
    table.add_column("claims", justify="right")
    table.add_column("state")
    for each in found:
        paper = Text(f"{each.title} ({each.venue})")
        table.add_row(Text(each.id), each.section, paper, str(len(each.claims)), Text(_state(known[each.id])))
    console = Console()
    console.print(table)
    runnable = sum(each.status != "specified" for each in known.values())
    claims = sum(len(each.claims) for each in found)
    papers = "1 paper" if len(found) == 1 else f"{len(found)} papers"
    console.print(f"{papers}, {claims} registered claims; {runnable} studies can be run", highlight=False)


def show_entry(id: str, results: Path, *, json: bool) -> None:
    """One entry with its claims; its parameters, presets, functions and last result if there is a study."""
    found = entry(id)
    study = _study_facts(found) if is_ready(found) else None
    state = states([found], results)[id]
    if json:
        facts = dataclasses.asdict(found) | {"status": state.status, "study": study, "last": state.last}
        print(json_module.dumps(facts, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    place = f"{found.authors}; {found.venue}" + (f"; arXiv {found.arxiv}" if found.arxiv else "")
    console.print(Text(found.title, style="bold"))
    console.print(Text(f"{place}\nsection {found.section}\n\n{found.gist}\n"))
    verdicts = {str(claim.get("id")): claim for claim in (state.last or {}).get("claims", [])}
    for claim in found.claims:
        console.print(_claim(claim, verdicts.get(claim.id)))
    console.print(Text("A claim's threshold was registered before its experiment was run.\n", style="dim"))
    if study is None:
        console.print(Text("There is no study of it yet."))
        return
    console.print(_study(study, state))


def _row(found: Entry, state: State) -> dict[str, Any]:
    last = state.last
    return {
        "id": found.id,
        "section": found.section,
        "title": found.title,
        "venue": found.venue,
        "claims": len(found.claims),
        "status": state.status,
        "last": None if last is None else {name: last.get(name) for name in ("preset", "seed", "date")},
        "verdicts": None if last is None else {str(c.get("id")): c.get("verdict") for c in last["claims"]},
    }


def _state(state: State) -> str:
    return state.status if state.last is None else f"{tally(state.last)} ({state.last.get('preset')})"


def _study_facts(found: Entry) -> dict[str, Any]:
    """What a study says about itself."""
    from ..lab import study
    from ..lab.sources import plain
    from ..lab.uses import uses

    made = study(found.id)
    return {
        "parameters": {
            name: {"default": plain(each.default), "help": each.help} for name, each in made.parameters.items()
        },
        "presets": {name: plain(values) for name, values in made.presets.items()},
        "uses": uses(made),
    }


def _study(study: dict[str, Any], state: State) -> Text:
    text = Text("Parameters", style="bold")
    for name, each in study["parameters"].items():
        text.append(f"\n  {name} = {_short(each['default'])}", style="not bold")
        text.append(f"  {each['help']}", style="not bold dim")
    text.append("\nPresets")
    for name, values in study["presets"].items():
        settings = ", ".join(f"{key}={_short(value)}" for key, value in values.items()) or "the defaults"
        text.append(f"\n  {name}: {settings}", style="not bold")
    text.append("\nUses")
    text.append(f"\n  {', '.join(study['uses'])}", style="not bold")
    text.append("\nLast result")
    last = state.last
    words = "none yet" if last is None else f"{tally(last)}; preset {last.get('preset')}, seed {last.get('seed')}, "
    text.append(f"\n  {words}" + ("" if last is None else f"{last.get('date')}"), style="not bold")
    return text


def _short(value: Any) -> str:
    return value.removeprefix("phenoscope.") if isinstance(value, str) else str(value)


def _claim(claim: Claim, last: dict[str, Any] | None) -> Text:
    text = Text(claim.id, style="bold")
    marks = [
        word
        for word, on in (("gpu scale", claim.scale), ("negative control", claim.control), ("timing", claim.timing))
        if on
    ]
    text.append(f"  {', '.join(marks)}\n" if marks else "\n", style="dim")
    text.append(f"  {claim.statement}\n", style="not bold")
    lines = [
        ("observable", claim.observable),
        ("unit", claim.unit),
        ("expects", claim.expects),
        ("source", claim.source),
        ("doubt", claim.doubt),
        ("amended", claim.amended),
        ("last verdict", last and f"{last.get('verdict')} (estimate {last.get('estimate')})"),
    ]
    for name, value in lines:
        if value:
            text.append(f"  {name}: ", style="dim")
            text.append(f"{value}\n", style="not bold")
    return text
