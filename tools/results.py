"""The README's table of results, from docs/results/; with --run, every study is run first and its verdicts kept there.

python tools/results.py            # the table only
python tools/results.py --run      # all studies at their default preset, then the table
python tools/results.py --run snip double-descent
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from phenoscope.catalogue import entries, entry, is_ready, tally

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results"
BEGIN, END = "<!-- results: begin (make results) -->", "<!-- results: end -->"


def main(arguments: list[str]) -> None:
    """Run what is asked for and write the table."""
    if "--run" in arguments:
        named = [argument for argument in arguments if not argument.startswith("--")]
        for id in named or [each.id for each in entries() if is_ready(each)]:
            keep(id)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"README.md lacks the lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n\n{table(read(KEPT))}\n{END}{after}", encoding="utf-8")


def keep(id: str) -> None:
    """Run a study afresh and keep its verdicts."""
    from phenoscope.lab import run

    result = run(id, fresh=True, results=ROOT / "results")
    KEPT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(result.path / "verdict.json", KEPT / f"{id}.json")
    keep_figure(result.path / "figure.json", id)
    print(f"{id}: {tally(result.facts())} ({result.provenance['seconds']:.0f} s)", flush=True)


def keep_figure(file: Path, id: str) -> None:
    """Keep a study's figure for the pages of the documentation, which have a template of their own."""
    if not file.exists():
        return
    figure = json.loads(file.read_text(encoding="utf-8"))
    figure.get("layout", {}).pop("template", None)
    kept = KEPT / "figures" / f"{id}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(figure, separators=(",", ":")) + "\n", encoding="utf-8")


def read(folder: Path) -> list[dict]:
    """The kept verdicts, in the catalogue's order."""
    kept = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
    return [kept[each.id] for each in entries() if each.id in kept]


def table(results: list[dict]) -> str:
    """One row a study, and below it where and when they were run."""
    lines = ["| paper | verdicts | refuted or inconclusive | preset, seed | date | s |", "|---|---|---|---|---|---|"]
    for each in results:
        found = entry(each["id"])
        name = f"[{found.title}](https://arxiv.org/abs/{found.arxiv})" if found.arxiv else found.title
        doubtful = [f"`{c['id']}`" for c in each["claims"] if c["verdict"] in ("refuted", "inconclusive", "failed")]
        what = ", ".join(doubtful) or "–"
        when = f"{each['preset']}, {each['seed']} | {str(each['date'])[:10]} | {each['seconds']:.0f}"
        lines.append(f"| {name} (`{each['id']}`) | {tally(each)} | {what} | {when} |")
    machines = sorted({f"{each['machine']}, torch {each['versions'].get('torch')}" for each in results})
    return "\n".join(lines) + f"\n\nRun on {'; '.join(machines)}; s is seconds of wall time.\n"


if __name__ == "__main__":
    main(sys.argv[1:])
