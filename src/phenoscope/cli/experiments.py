"""run: studies from the command line."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..catalogue import entries, entry, is_ready
from ..core.errors import InputError
from ..lab import CellError, Result, run, study
from ..lab.parameters import check_names, parse
from ..lab.result import row
from ..lab.study import Study
from .objects import named_object


def run_studies(
    ids: list[str],
    *,
    section: str | None,
    all: bool,
    preset: str,
    seed: int,
    settings: list[str],
    model: str | None,
    data: str | None,
    jobs: int | None,
    engine: str,
    address: str | None,
    fresh: bool,
    results: Path,
    device: str | None,
    json: bool,
) -> int:
    """Run studies one after the other; a failing one does not stop the next. Gives the exit status."""
    chosen = [study(id) for id in _chosen(ids, section, all)]
    parameters = [_parameters(each, settings, model, data) for each in chosen]  # all checked before anything runs
    found: list[Result] = []
    failed, begun = 0, time.monotonic()
    for number, (each, values) in enumerate(zip(chosen, parameters, strict=True), 1):
        if len(chosen) > 1 and not json:
            print(f"study {number} of {len(chosen)}: {each.id}", file=sys.stderr)
        try:
            result = run(
                each.id,
                preset=preset,
                seed=seed,
                jobs=jobs,
                engine=engine,
                address=address,
                fresh=fresh,
                results=results,
                device=device,
                progress=not json,
                **values,
            )
        except CellError as error:
            print(f"phenoscope: {each.id}: {error}", file=sys.stderr)
            failed += 1
            continue
        found.append(result)
        failed += any(claim.verdict == "failed" for claim in result.claims)
        if not json:
            _print(result)
    if len(chosen) > 1 and not json:
        _print_total(found, len(chosen), time.monotonic() - begun)
    if json:
        facts = [result.facts() for result in found]
        one = len(chosen) == 1 and len(facts) == 1
        print(json_module.dumps(facts[0] if one else facts, indent=1, ensure_ascii=False))
    return int(failed > 0)


def _chosen(ids: list[str], section: str | None, all: bool) -> list[str]:
    if (len(ids) > 0) + (section is not None) + all != 1:
        raise InputError("name studies (phenoscope run snip), or a --section, or --all: one of the three")
    if ids:
        return [entry(id).id for id in ids]
    found = [each.id for each in entries(section) if is_ready(each)]
    if not found:
        raise InputError(f"section {section} has no study yet")
    return found


def _parameters(of: Study, settings: list[str], model: str | None, data: str | None) -> dict[str, Any]:
    """What `--set`, `--model` and `--data` say, checked against the experiment."""
    known = of.parameters
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: write --set name=value")
        check_names({name.strip(): text}, known, of.id)
        values[name.strip()] = parse(text, known[name.strip()])
    for option, spec, name in (("--model", model, "model"), ("--data", data, "dataset")):
        if spec is None:
            continue
        if name not in known:
            raise InputError(f"{of.id} takes no {option}: its experiment fixes that itself")
        values[name] = named_object(spec, option)
    return values


def _print(result: Result) -> None:
    console = Console(highlight=False)
    known = result.provenance
    console.print(Text(f"\n{result.study.entry.title}", style="bold"))
    for claim in result.claims:
        verdict, estimate, interval, expected = row(claim)
        text = Text(f"{verdict:<{_WIDTH - 2}}  ", style=_STYLES.get(verdict, ""))
        text.append(claim.claim.id, style="bold default")
        numbers = f"{estimate}{f', from {interval}' if interval else ''}" if estimate else ""
        lines = [
            f"{numbers}; expected {expected}" if numbers else claim.reason,
            claim.claim.amended and f"amended: {claim.claim.amended}",
            claim.note,
            claim.others and "under three other root seeds " + ", ".join(f"{value:.4g}" for value in claim.others),
        ]
        console.print(text)
        for line in filter(None, lines):
            console.print(Padding(Text(str(line), style="dim"), (0, 0, 0, _WIDTH)))
    reused = f", {known['cells_reused']} cells kept from before" if known.get("cells_reused") else ""
    about = f"preset {result.preset}, seed {known['seed']}, {known['device']}, {known['seconds']:.1f} s{reused}"
    console.print(Text(f"{about}; {result.path}", style="dim"), soft_wrap=True)


def _print_total(found: list[Result], chosen: int, seconds: float) -> None:
    counts = Counter(claim.verdict for result in found for claim in result.claims)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    text = f"\n{len(found)} of {chosen} studies in {seconds / 60:.1f} min; claims: {verdicts or 'none'}"
    Console(highlight=False).print(Text(text, style="bold"), soft_wrap=True)


_WIDTH = 14  # of a verdict; longer ones push the name on
_STYLES = {"holds": "green", "refuted": "red", "inconclusive": "yellow", "failed": "bold red"}
