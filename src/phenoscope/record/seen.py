"""What the observers of a watched run saw, on disk: `watched.bin`, blocks of one observer each, behind one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from . import store


class Look(NamedTuple):
    """What the observers gave at one step."""

    step: int
    values: Mapping[str, np.ndarray]


def keep_looks(path: Path, looks: list[Look]) -> None:
    """Add looks to those of a run, a block an observer."""
    for name in dict.fromkeys(name for look in looks for name in look.values):
        its = [look for look in looks if name in look.values]
        block = {
            "name": np.array(name),
            "step": np.array([look.step for look in its], np.int64),
            "values": np.stack([look.values[name] for look in its]),
        }
        store.append_block(_file(path), block)


def cut_looks(path: Path, step: int) -> dict[str, tuple[int, ...]]:
    """Drop looks after a step, and a torn last block; returns the shape that each observer gives."""
    if not _file(path).is_file():
        return {}
    blocks = []
    for block in store.read_blocks(_file(path)):
        there = block["step"] <= step
        if there.any():
            blocks.append({"name": block["name"], "step": block["step"][there], "values": block["values"][there]})
    store.write_blocks(_file(path), blocks)
    return {str(block["name"]): block["values"].shape[1:] for block in blocks}


def read_looks(path: Path) -> xr.Dataset:
    """Every observer over `step`, its further axes called `name_0`, `name_1` ...; NaN where it was not asked."""
    parts: dict[str, list[store.Block]] = {}
    for block in store.read_blocks(_file(path)):
        parts.setdefault(str(block["name"]), []).append(block)
    steps = np.unique(_joined(parts, "step"))
    return xr.Dataset(
        {
            name: (("step", *(f"{name}_{axis}" for axis in range(blocks[0]["values"].ndim - 1))), _along(steps, blocks))
            for name, blocks in parts.items()
        },
        {"step": steps} if parts else None,
    )


def _joined(parts: Mapping[str, Iterable[store.Block]], key: str) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *(block[key] for blocks in parts.values() for block in blocks)])


def _along(steps: np.ndarray, blocks: list[store.Block]) -> np.ndarray:
    own, values = (np.concatenate([block[key] for block in blocks]) for key in ("step", "values"))
    if np.array_equal(own, steps):
        return values
    spread = np.full((len(steps), *values.shape[1:]), np.nan, np.result_type(values.dtype, np.float64))
    spread[np.searchsorted(steps, own)] = values
    return spread


def _file(path: Path) -> Path:
    return path / "watched.bin"
