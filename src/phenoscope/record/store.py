"""A run on disk: what lies where, and in which order it is written so that a kill at any moment loses nothing.

    run.json            the layers, thresholds and facts of the run
    state.json          the marker: how many records and rows the arrays hold for certain
    measures.zarr/      step, gap, layers (means at every record), scalars; rows, distance, counts (a value a filter)
    journal-N.bin       records since the marker said N, in blocks
    watched.bin         what the observers of a watch saw, in blocks
    snapshots/, final.safetensors

New records go to the journal, in blocks whose length stands before them. When enough have gathered they are put into
the arrays, the marker is replaced (one atomic rename), and the journal that belongs to the new marker begins. Whatever
the arrays hold beyond the marker, and a journal's unfinished last block, does not count.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..core.errors import InputError

FORMAT = 1
CHUNK = 256  # records of a chunk, and of the journal before they move into the arrays
_COLUMNS = 4096
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"PHENOJ01"
_SNAPSHOT = re.compile(r"step-(\d+)\.safetensors")
_OWN = ("state.json", "measures.zarr", "snapshots", "final.safetensors", "ablation", "watched.bin")

Block = dict[str, np.ndarray]  # step, gap, layers, scalars, names, kept, distance, counts of some records


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def remove_run(path: Path) -> None:
    """Delete what a run consists of, and nothing else that lies in the folder; last of all what says that it is one."""
    for entry in [*(path / name for name in _OWN), *sorted(path.glob("journal-*.bin")), path / "run.json"]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def snapshots(path: Path) -> dict[int, Path]:
    """The files of weights that a run kept, by step, in order."""
    named = ((file, _SNAPSHOT.fullmatch(file.name)) for file in (path / "snapshots").glob("step-*"))
    return dict(sorted((int(match[1]), file) for file, match in named if match and file.is_file()))


def remove_weights(path: Path, step: int, *, final: bool) -> None:
    """Delete the snapshots after a step, and the final state: they are of updates that are made again."""
    for at, file in snapshots(path).items():
        if at > step:
            file.unlink(missing_ok=True)
    if final:
        (path / "final.safetensors").unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value, indent=1), encoding="utf-8")
    beside.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


def journal(path: Path, records: int) -> Path:
    return path / f"journal-{records}.bin"


def append_block(path: Path, block: Block) -> None:
    """Add a block to a journal; a write that fails half-way is taken back, as far as the disk allows."""
    buffer = io.BytesIO()
    np.savez(buffer, **block)  # type: ignore[arg-type]
    data = buffer.getbuffer()
    with path.open("ab") as file:
        end = file.tell()
        try:
            file.write(_HEADER.pack(_MAGIC, len(data)))
            file.write(data)
            file.flush()
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


def read_blocks(path: Path) -> Iterator[Block]:
    """The whole blocks of a journal, up to the first that is not."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            magic, length = _HEADER.unpack(header)
            if magic != _MAGIC or length > os.fstat(file.fileno()).st_size - file.tell():
                return
            with np.load(io.BytesIO(file.read(length)), allow_pickle=False) as arrays:
                yield dict(arrays)


def write_blocks(path: Path, blocks: Sequence[Block]) -> None:
    """Replace a journal by these blocks."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    beside.touch()
    for block in blocks:
        append_block(beside, block)
    beside.replace(path)


def first_records(blocks: list[Block], count: int) -> list[Block]:
    """The first `count` records of some blocks."""
    cut = []
    for block in blocks:
        take = min(count, len(block["step"]))
        rows = int(block["kept"][:take].sum())
        if take:
            lengths = {"distance": rows, "counts": rows, "names": None}
            cut.append({name: values[: lengths.get(name, take)] for name, values in block.items()})
        count -= take
    return cut


class Arrays:
    """The zarr arrays of a run; `append` adds a block behind the records and rows that the caller knows to be good."""

    def __init__(self, path: Path, mode: Literal["r", "r+"] = "r") -> None:
        import zarr

        try:
            self._group = zarr.open_group(path / "measures.zarr", mode=mode, zarr_format=3)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is no whole run: its measures cannot be opened ({error})") from error

    @classmethod
    def create(cls, path: Path, layers: int, filters: int, counts: np.dtype) -> Arrays:
        import zarr

        _create(zarr.open_group(path / "measures.zarr", mode="w", zarr_format=3), layers, filters, counts)
        return cls(path, "r+")

    def __getitem__(self, name: str) -> Any:
        return self._group[name]

    def append(self, block: Block, records: int, rows: int) -> None:
        """Put a block behind the first `records` records and `rows` rows, making room for more layers and scalars."""
        for name in ("step", "gap", "layers", "scalars"):
            self._put(name, records, block[name])
        kept = np.flatnonzero(block["kept"])
        self._put("rows", rows, records + kept)
        for name in ("distance", "counts"):
            self._put(name, rows, block[name])

    def _put(self, name: str, start: int, values: np.ndarray) -> None:
        if not len(values) and start:
            return
        array: Any = self._group[name]
        rest = [max(old, new) for old, new in zip(array.shape[1:], values.shape[1:], strict=True)]
        array.resize((start + len(values), *rest))
        if len(values):
            array[(slice(start, start + len(values)), *(slice(0, n) for n in values.shape[1:]))] = values


def _create(group: Any, layers: int, filters: int, counts: Any) -> None:
    from zarr.codecs import BloscCodec

    squeeze = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    wide = (CHUNK, min(_COLUMNS, max(1, filters)))
    for name, dtype, shape, chunks, fill in [
        ("step", "int64", (0,), (CHUNK,), 0),
        ("gap", "bool", (0,), (CHUNK,), False),
        ("layers", "float64", (0, layers, 3), (CHUNK, max(1, layers), 3), np.nan),
        ("scalars", "float64", (0, 0), (CHUNK, 16), np.nan),
        ("rows", "int64", (0,), (CHUNK,), 0),
        ("distance", "float32", (0, filters), wide, np.nan),
        ("counts", counts, (0, filters), wide, np.iinfo(counts).max),
    ]:
        group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, compressors=squeeze)
