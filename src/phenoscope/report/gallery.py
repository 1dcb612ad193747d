"""The gallery: a folder of pages on the whole catalogue, its results and recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..catalogue import Entry, entries
from ..core.errors import InputError
from ..record.run import Run
from .gallery_page import gallery_page
from .index_page import index_page
from .pages_folder import write_pages
from .run_folders import open_whole, run_folders
from .run_page import run_page
from .run_report import page_names
from .shelf import Shelf, known_ids, read_shelf
from .study_page import file_of, study_page
from .theme import Live, scripts

SHARED = ("plotly.min.js", "page.js", "cards.js")


def gallery(
    results: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    runs: Sequence[Path | str] | Path | str = (),
) -> Path:
    """Write pages on every paper of the catalogue: an index of cards, and a page with claims, verdicts and figure each.

    The pages open from disk and load nothing over a network. A file that cannot be used is named on the pages; the
    others are shown all the same.

    Args:
        results: folders with results, as `phenoscope run` keeps them, or with a file `<id>.json` for each study.
        output: where the pages go; made if need be. Pages of the same names are replaced.
        runs: recorded runs, or folders with such.

    Returns:
        The path of `index.html`.

    Raises:
        InputError: `output` cannot be written.
    """
    folders, output = paths(results), Path(output)
    catalogue = entries()
    shelves = {entry.id: read_shelf(folders, entry.id) for entry in catalogue}
    recorded, problems = _runs(paths(runs))
    problems = [*folder_problems(folders, catalogue), *problems]
    if recorded:
        write_pages(output / "runs", scripts() | recorded_pages(recorded))
    pages = scripts(SHARED)
    for entry in catalogue:
        pages |= study_pages(entry, shelves[entry.id])
    names = {f"runs/{file}": name for file, (name, _) in recorded.items()}
    pages["index.html"] = gallery_page(catalogue, shelves, runs=names, problems=problems)
    write_pages(output, pages)
    return output / "index.html"


def study_pages(entry: Entry, shelf: Shelf, *, live: Live | None = None) -> dict[str, str]:
    """An entry's page, and one for each further result, by file name."""
    shown = {file_of(each, shelf): each for each in shelf.outcomes if each is shelf.first or each.folder}
    pages = {file: study_page(entry, shelf, outcome, live=live) for file, outcome in shown.items()}
    return pages or {f"{entry.id}.html": study_page(entry, shelf, None, live=live)}


def recorded_pages(runs: dict[str, tuple[str, Run]]) -> dict[str, str]:
    """The pages of recorded runs by file name, the index last."""
    pages = {file: run_page(name, run) for file, (name, run) in runs.items()}
    return pages | {"index.html": index_page(runs, home="../index.html")}


def folder_problems(folders: Sequence[Path], catalogue: Sequence[Entry]) -> list[str]:
    """Sentences on folders of results that are not there, and on results of nothing that the catalogue has."""
    missing = [f"there is no folder {each}; `phenoscope run ID` makes results" for each in folders if not each.is_dir()]
    unknown = sorted(known_ids(folders) - {entry.id for entry in catalogue})
    if unknown:
        named = ", ".join(unknown[:8]) + (" …" if len(unknown) > 8 else "")
        missing.append(f"results of what the catalogue does not have are left out: {named}")
    return missing


def paths(given: Sequence[Path | str] | Path | str) -> list[Path]:
    """One path or several, as a list."""
    return [Path(each) for each in ([given] if isinstance(given, (str, Path)) else given)]


def _runs(places: Sequence[Path]) -> tuple[dict[str, tuple[str, Run]], list[str]]:
    """File name of a page -> a run's name and the run; and a sentence on each that cannot be opened."""
    folders, problems = run_folders(places)
    opened: dict[str, Run] = {}
    for name, folder in folders.items():
        try:
            opened[name] = open_whole(folder)
        except InputError as error:
            problems.append(str(error))
    files = page_names(list(opened))
    return {files[name]: (name, run) for name, run in opened.items()}, problems
