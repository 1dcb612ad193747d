"""list, show: the catalogue on the terminal, without torch."""

from __future__ import annotations

import dataclasses
import json as json_module

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..catalogue import Claim, entries, entry


def list_entries(section: str | None, *, json: bool) -> None:
    """Every entry of the catalogue, or of one section."""
    found = entries(section)
    if json:
        rows = [
            {"id": e.id, "section": e.section, "title": e.title, "venue": e.venue, "claims": len(e.claims)}
            for e in found
        ]
        print(json_module.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "section", "paper"):
        table.add_column(column, no_wrap=column != "paper")
    table.add_column("claims", justify="right")
    for each in found:
        table.add_row(Text(each.id), each.section, Text(f"{each.title} ({each.venue})"), str(len(each.claims)))
    console = Console()
    console.print(table)
    console.print(f"{len(found)} papers, {sum(len(each.claims) for each in found)} registered claims", highlight=False)


def show_entry(id: str, *, json: bool) -> None:
    """One entry with its claims."""
    found = entry(id)
    if json:
        print(json_module.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    place = f"{found.authors}; {found.venue}" + (f"; arXiv {found.arxiv}" if found.arxiv else "")
    console.print(Text(found.title, style="bold"))
    console.print(Text(f"{place}\nsection {found.section}\n\n{found.gist}\n"))
    for claim in found.claims:
        console.print(_claim(claim))
    console.print(Text("A claim's threshold was registered before its experiment was run.", style="dim"))


def _claim(claim: Claim) -> Text:
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
    ]
    for name, value in lines:
        if value:
            text.append(f"  {name}: ", style="dim")
            text.append(f"{value}\n", style="not bold")
    return text
