"""Pages on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.errors import InputError


def write_pages(directory: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder that is made if need be, each beside its place and then renamed into it.

    Args:
        directory: for the pages.
        files: name -> content, in the order of writing: what links to others comes after them.

    Raises:
        InputError: they cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            beside = directory / f"{name}.new"
            beside.write_text(content, encoding="utf-8")
            beside.replace(directory / name)
    except OSError as error:
        raise InputError(f"the pages cannot be written to {directory}: {error}") from error
