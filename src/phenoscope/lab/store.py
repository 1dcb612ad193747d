"""Datasets and results on disk: written beside their place, then renamed into it, so that a half is never read."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..core.errors import InputError


@contextmanager
def into_place(path: Path, *, replace: bool) -> Iterator[Path]:
    """A new folder to fill that stands at `path` afterwards, whole, or not at all.

    Two processes may do so at once: one of them wins, and neither harms the other.

    Args:
        path: where the folder will stand.
        replace: whether it takes the place of one that is there; otherwise that one is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    fresh.mkdir()
    try:
        yield fresh
        if replace and path.exists():
            old = path.parent / f".{path.name}.{uuid.uuid4().hex}"
            with suppress(FileNotFoundError):  # another process was faster
                path.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):  # a folder that is there and not empty refuses the rename: it is as good as this one
            fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_dataset(folder: Path, data: xr.Dataset) -> None:
    """Write a dataset as zarr."""
    for name, variable in data.variables.items():
        if variable.dtype.hasobject:
            raise InputError(f"{name} holds Python objects; results are numbers, booleans and text")
    data.drop_encoding().to_zarr(folder, mode="w", zarr_format=2, consolidated=False)


def read_dataset(folder: Path) -> xr.Dataset:
    """Read what `write_dataset` wrote, into memory.

    Raises:
        InputError: it is damaged.
    """
    try:
        return xr.open_zarr(folder, consolidated=False, chunks=None).load()
    except Exception as error:  # whatever a damaged file makes zarr raise
        raise InputError(
            f"{folder} cannot be read ({type(error).__name__}: {error}); delete it and run again"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON whole: infinite numbers as text, NaN as null."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    text = json.dumps(strict(content), indent=1, ensure_ascii=False, allow_nan=False)
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)


def strict(value: Any) -> Any:
    """The same with every number as strict JSON has it: infinity is written "Infinity", NaN is null."""
    if isinstance(value, dict):
        return {str(name): strict(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
