"""gallery, serve: the site of all papers, built or live."""

from __future__ import annotations

import json as json_module
from pathlib import Path


def gallery(results: Path, output: Path, *, json: bool) -> None:
    """Build the static site and say where it is."""
    from .. import report

    index = report.gallery(results, output)
    print(json_module.dumps({"index": str(index)}) if json else f"The gallery: {index}")


def serve(results: Path, runs: Path, host: str, port: int) -> None:
    """Serve the site until Ctrl-C."""
    from .. import report

    report.serve(results, runs=runs, host=host, port=port)
