"""A hook of mkdocs: what a page shows of a study's kept result, by a line of its own.

`<!-- figure: ID -->` becomes the study's figure, as on its own page; `<!-- verdicts: ID -->` the table of its claims.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import plotly
from mkdocs.structure.files import File, Files

from phenoscope import report
from phenoscope.catalogue import entry
from phenoscope.report.figure_box import stored_figure_box
from phenoscope.report.figure_file import read_figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
TABLE = re.compile(r"<!-- verdicts: ([a-z0-9-]+) -->")
PLACE = re.compile(r"<!-- figure: ([a-z0-9-]+) -->")
REPORT = Path(report.__file__).parent
SCRIPTS = {
    "assets/plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    "assets/page.js": REPORT / "page.js",
}
SHEETS = {"assets/figure.css": REPORT / "figure.css"}  # mkdocs.yml names it


def on_files(files: Files, config: Any) -> Files:
    """Scripts and style come from the packages that they belong to, so that the repository keeps no copies."""
    for name, source in (SCRIPTS | SHEETS).items():
        files.append(File.generated(config, name, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the tables in."""
    return TABLE.sub(lambda found: verdicts(found[1]), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put the figures in, and the scripts under the last of them."""
    if not PLACE.search(html):
        return html
    up = "../" * page.url.count("/")
    scripts = "".join(f'<script src="{up}{name}"></script>\n' for name in SCRIPTS)
    return PLACE.sub(lambda found: figure(found[1]), html) + scripts


def verdicts(id: str) -> str:
    """The claims of a study with what was measured and the verdict, as a table."""
    kept = json.loads((RESULTS / f"{id}.json").read_text(encoding="utf-8"))
    lines = ["| registered claim | expected | measured | verdict |", "|---|---|---|---|"]
    for claim in kept["claims"]:
        value = "–" if claim["estimate"] is None else f"{claim['estimate']:.3g}"
        if claim["n"] and claim["n"] > 1 and claim["low"] is not None:
            value += f" ({claim['low']:.3g} to {claim['high']:.3g})"
        cells = (claim["statement"], claim["expects"], value, f"**{claim['verdict']}**")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(["", *lines, ""])


def figure(id: str) -> str:
    """The figure of a study as HTML.

    Raises:
        InputError: there is no such entry, or no kept figure.
    """
    title = f"{entry(id).title}: what its study found"
    read = functools.partial(read_figure, RESULTS / "figures" / f"{id}.json")
    read()  # a figure that is missing must end the build, not become a sentence on the page
    return stored_figure_box(f"figure-{id}", title, read)
