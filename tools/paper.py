"""What the page on the paper shows: tables from docs/results/functions-evolve.json and from a kept run of the demo.

python tools/paper.py         # docs/measured/paper.md, and the README's table of the demo, from what is kept
python tools/paper.py --run   # runs `phenoscope demo` first (a minute or two) and keeps its figures
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VERDICTS = ROOT / "docs" / "results" / "functions-evolve.json"
DEMO = ROOT / "docs" / "measured" / "demo.json"
WRITTEN = ROOT / "docs" / "measured" / "paper.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: begin (tools/paper.py) -->", "<!-- demo: end -->"
NAMES = {"vgg16": "VGG-16", "resnet50": "ResNet-50 v2"}
MEASURES = {"changed": "{:.3f}", "idle": "{:.3f}", "distance_per_weight": "{:.2e}", "distance": "{:.2e}"}


def main(arguments: list[str]) -> None:
    """Run the demo if asked for, and write the tables."""
    if "--run" in arguments:
        DEMO.parent.mkdir(parents=True, exist_ok=True)
        DEMO.write_text(json.dumps(demo(), indent=1) + "\n", encoding="utf-8")
    verdicts, shown = (json.loads(file.read_text(encoding="utf-8")) for file in (VERDICTS, DEMO))
    WRITTEN.write_text(page(verdicts, shown), "utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{beside(shown)}\n\n{END}{rest.partition(END)[2]}", "utf-8")


def demo() -> dict[str, Any]:
    """What `phenoscope demo --json` prints, less what only that folder knows, and when and with what it was run."""
    import torch

    from phenoscope.cli.app import run

    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
        status = run(["demo", "--json", "--output", folder])
    if status:
        raise SystemExit(status)
    said = json.loads(printed.getvalue())
    del said["report"]
    for each in said["runs"].values():
        del each["path"]
    return {"date": f"{date.today():%Y-%m-%d}", "torch": torch.__version__} | said


def page(verdicts: dict[str, Any], shown: dict[str, Any]) -> str:
    """Each table between markers of its name, as mkdocs' snippets take them."""
    parts = {"claims": claims(verdicts), "demo": beside(shown), "layers": layers(shown), "zeroed": zeroed(shown)}
    return "\n".join(
        f"<!-- --8<-- [start:{name}] -->\n{text}\n<!-- --8<-- [end:{name}] -->\n" for name, text in parts.items()
    )


def claims(verdicts: dict[str, Any]) -> str:
    """The registered claims with their verdicts, and where and when they were judged."""
    lines = ["| the paper | what was registered | measured | verdict |", "|---|---|---|---|"]
    for claim in verdicts["claims"]:
        value = "–" if claim["estimate"] is None else f"{claim['estimate']:.3f}"
        if claim["low"] is not None:
            value += f" (95 % interval {claim['low']:.3f} to {claim['high']:.3f}, n = {claim['n']})"
        lines.append(
            f"| {claim['statement']} ({claim['source']}) | {claim['observable']}: `{claim['expects']}` "
            f"| {value} | {claim['verdict']} |"
        )
    lines += ["", f"Preset {verdicts['preset']}, seed {verdicts['seed']}, {verdicts['date'][:10]}, on "]
    lines[-1] += f"{verdicts['machine']}, torch {verdicts['versions']['torch']}."
    notes = [f"- `{c['id']}`: {c[key]}" for c in verdicts["claims"] for key in ("note", "doubt", "amended") if c[key]]
    return "\n".join([*lines, "", *notes] if notes else lines)


def beside(shown: dict[str, Any]) -> str:
    """What the paper found, and what one run of the demo shows."""
    words = {True: "yes", False: "no", None: "undecided"}
    lines = ["| the paper | one run of the demo | agrees |", "|---|---|---|"]
    for each in shown["findings"]:
        lines.append(f"| {capital(each['paper'])} | {capital(each['here'])} | {words[each['agrees']]} |")
    return "\n".join(
        [*lines, "", f"Seed {shown['seed']}, width {shown['width']:g}, {shown['date']}, torch {shown['torch']}."]
    )


def layers(shown: dict[str, Any]) -> str:
    """Time-means of the paper's five layers, both networks."""
    lines = [
        "| network | layer | changed share S | idle share Z | distance per weight | raw distance D |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in shown["runs"].items():
        for layer in run["layers"]:
            values = " | ".join(form.format(layer[key]) for key, form in MEASURES.items())
            lines.append(f"| {NAMES[name]} | `{layer['layer']}` | {values} |")
    return "\n".join(lines)


def zeroed(shown: dict[str, Any]) -> str:
    """Accuracy lost when the quarter of a layer's filters that evolved least is zeroed."""
    lines = [
        "| network | layer | filters zeroed | points lost | a random choice (95 % interval) | those of smallest norm |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in shown["runs"].items():
        for layer in run["least_evolved"]["layers"][:-1]:
            drop, random, low, high, norm = (
                100 * layer[key] for key in ("drop", "random_mean", "random_low", "random_high", "norm_drop")
            )
            lines.append(
                f"| {NAMES[name]} | `{layer['layer']}` | {layer['count']} of {layer['filters']} | {drop:.2f} "
                f"| {random:.2f} ({low:.2f} to {high:.2f}) | {norm:.2f} |"
            )
    return "\n".join(lines)


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


if __name__ == "__main__":
    main(sys.argv[1:])
