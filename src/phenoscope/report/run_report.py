"""The report on recorded runs: a folder of pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..record.figures.names import named
from ..record.run import Run, open_run
from .index_page import index_page
from .pages_folder import write_pages
from .run_page import run_page
from .theme import scripts


def run_report(
    runs: Sequence[Run | Path | str] | Run | Path | str,
    directory: Path | str,
    *,
    image: Tensor | Path | str | None = None,
) -> Path:
    """Write pages on recorded runs: `index.html` with the runs side by side, and one page a run.

    The pages open from disk and load nothing over a network. What a run lacks (snapshots, an ablation) is replaced by
    a sentence that says how to get it.

    Args:
        runs: runs, or the folders that hold them.
        directory: where the pages go; made if need be. Pages of the same names are replaced.
        image: for the feature maps: a tensor (C, H, W) as the networks would get it, or an image file; by default the
            one that lies with each run.

    Returns:
        The path of `index.html`.

    Raises:
        InputError: no run, a folder without one, or a directory that cannot be written.
    """
    given = [runs] if isinstance(runs, (Run, Path, str)) else list(runs)
    several = named([run if isinstance(run, Run) else open_run(run) for run in given])
    files = page_names([name for name, _ in several])
    pages = {files[name]: (name, run) for name, run in several}
    content = scripts() | {file: run_page(name, run, image) for file, (name, run) in pages.items()}
    write_pages(Path(directory), content | {"index.html": index_page(pages)})
    return Path(directory) / "index.html"


def page_names(names: Sequence[str]) -> dict[str, str]:
    """For every run's name, a file name of plain characters that no other page has."""
    files: dict[str, str] = {}
    for name in names:
        plain = "run-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "1")
        number, file = 1, f"{plain}.html"
        while file in files.values():
            number += 1
            file = f"{plain}-{number}.html"
        files[name] = file
    return files
