"""gallery, serve: the site of all papers, built or live."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path

_USUAL = (Path("results"), Path("docs/results"))  # the second where this is run in the project itself


def gallery(results: Sequence[Path], runs: Sequence[Path], output: Path, *, json: bool) -> None:
    """Build the static site and say where it is."""
    from .. import report

    index = report.gallery(_folders(results), output, runs=runs)
    print(json_module.dumps({"index": str(index)}) if json else f"The gallery: {index}")


def serve(results: Sequence[Path], runs: Sequence[Path], host: str, port: int) -> None:
    """Serve the site until Ctrl-C."""
    from .. import report

    report.serve(_folders(results), runs=runs or [Path("runs")], host=host, port=port)


def _folders(results: Sequence[Path]) -> list[Path]:
    """Those named, or the usual ones that are there."""
    return list(results) or [folder for folder in _USUAL if folder.is_dir()] or [_USUAL[0]]
