"""The report on recorded runs: a folder of pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..core.errors import InputError
from ..record.figures.names import named
from ..record.run import Run, open_run
from .index_page import index_page
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
    pages: dict[str, tuple[str, Run]] = {}
    for name, run in several:
        pages[_file_name(name, taken=pages)] = (name, run)
    files = scripts() | {file: run_page(name, run, image) for file, (name, run) in pages.items()}
    files["index.html"] = index_page(pages)  # last, so that it links to nothing that is not there
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            _write(directory / file, content)
    except OSError as error:
        raise InputError(f"the report cannot be written to {directory}: {error}") from error
    return directory / "index.html"


def _file_name(name: str, taken: dict[str, tuple[str, Run]]) -> str:
    """A file name of plain characters that no other page has."""
    plain = "run-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "1")
    number, file = 1, f"{plain}.html"
    while file in taken:
        number += 1
        file = f"{plain}-{number}.html"
    return file


def _write(path: Path, content: str) -> None:
    """Beside, then renamed into place."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
