"""Kernels on disk: a zarr array whose chunks are the blocks, each with a checksum, so that a run that ended goes on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...lab.store import into_place
from ..limits.result import LimitKernels
from .blocks import Blocks, mirrored

if TYPE_CHECKING:
    import zarr

_MARK = "phenoscope_kernel"
_FORMAT = 1
_CHUNK = 4096  # examples of a block of a kernel that is saved whole


def save(path: str | Path, kernel: Tensor | LimitKernels, *, about: Mapping[str, Any] | None = None) -> None:
    """Keep a kernel on disk, as zarr; it replaces one that is there.

    Args:
        path: a folder.
        kernel: a tensor, or what `kernels.infinite` and `kernels.mlp_kernels` give.
        about: what to note with it: numbers, text, lists and mappings of them.

    Raises:
        InputError: something else than a kernel stands there, or notes that JSON cannot hold.
    """
    path = Path(path)
    if path.exists() and _settings(path) is None:
        raise InputError(f"{path} is there and is no kernel: choose another place")
    try:
        notes = json.loads(json.dumps(dict(about or {})))
    except (TypeError, ValueError) as error:
        raise InputError(f"about must be numbers, text, lists and mappings of them: {error}") from None
    if isinstance(kernel, LimitKernels):
        named = {name: kernel.__dict__.get(name) for name in ("nngp", "ntk")}
        parts = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    else:
        parts = {"": kernel}
    with into_place(path, replace=True) as fresh:
        for name, value in parts.items():
            array = _numbers(value)
            chunks = tuple(min(_CHUNK, size) for size in array.shape[:2]) + array.shape[2:]
            settings = {"kind": "limit" if name else "kernel", "about": notes}
            _create(fresh / name, array.shape, chunks, str(array.dtype), settings)[...] = array
        if "" not in parts:
            (fresh / "kernels.json").write_text(json.dumps({_MARK: {"format": _FORMAT, "names": sorted(parts)}}))


def load(path: str | Path) -> Tensor | LimitKernels:
    """Read what `save`, or `empirical_ntk(..., out=path)`, wrote, into memory.

    What is too large for that is a plain zarr array: `zarr.open_array(path)[:1000]`. Nothing is unpickled.

    Returns:
        The kernel as it was given to `save`, on the CPU.

    Raises:
        InputError: no kernel is there, it is damaged, or its computation has not come to the end.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no kernel at {path}")
    if _settings(path) is None:
        raise InputError(f"{path} is not a kernel that phenoscope wrote")
    if not (path / "kernels.json").exists():
        return _read(path)
    parts = {name: _read(path / name) for name in json.loads((path / "kernels.json").read_text())[_MARK]["names"]}
    return LimitKernels(**{"nngp": None, "ntk": None} | parts)  # type: ignore[arg-type]


def to_disk(
    path: Path,
    make: Blocks,
    identity: dict[str, Any],
    *,
    progress: Callable[[int, int], object] | None = None,
    spread: Callable[[list[tuple[int, int]], Callable[[int], object]], object] | None = None,
) -> zarr.Array:
    """Make the blocks that are not there yet.

    Args:
        path: where the array stands or will stand.
        make: makes a block.
        identity: `identity_of` what the kernel belongs to.
        progress: called as `progress(done, total)`.
        spread: does several blocks elsewhere, and puts them there itself; called as `spread(places, tell)`.

    Raises:
        InputError: the kernel of something else stands there, or something that is no kernel.
    """
    array = open_for(path, make, identity)
    places = make.places
    left = [place for place in places if not all(_is_there(array, path, *each) for each in make.both(*place))]

    def tell(done: int) -> None:
        if progress:
            progress(len(places) - len(left) + done, len(places))

    tell(0)
    if spread is not None and left:
        spread(left, tell)
        left = [place for place in left if not all(_is_there(array, path, *each) for each in make.both(*place))]
    for done, (i, j) in enumerate(left, start=1):
        put(array, make, i, j)
        tell(done)
    return array


def put(array: zarr.Array, make: Blocks, i: int, j: int) -> None:
    """Make a block and write it, and on a symmetric kernel its mirror image."""
    part = make(i, j)
    if len(make.both(i, j)) == 2:
        array[make.rows(j), make.rows(i)] = _numbers(mirrored(part))
    array[make.rows(i), make.rows(j)] = _numbers(part)


def open_for(path: Path, make: Blocks, identity: dict[str, Any]) -> zarr.Array:
    """The array, new or as it was left; its blocks keep the size that they began with."""
    import zarr

    if path.exists() and any(path.iterdir()):
        known = _settings(path)
        if known is None:
            raise InputError(f"{path} is there and is no kernel: choose another place for out")
        _check(path, known, identity)
        make.block = int(known["block"])
        return zarr.open_array(path, mode="r+")
    n1, n2 = make.sides
    chunks = min(make.block, n1), min(make.block, n2)
    name = "float32" if make.dtype == torch.bfloat16 else str(make.dtype).removeprefix("torch.")
    shape = (n1, n2, *make.shape)
    return _create(path, shape, (*chunks, *make.shape), name, identity | {"block": make.block})


def identity_of(model: nn.Module, x1: Tensor, x2: Tensor | None, **settings: Any) -> dict[str, Any]:
    """What makes a kernel this one: the network's layers and values, what of it is trained, the inputs, settings."""
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(model)).encode())
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.requires_grad} {tensor_digest(value)}".encode())
    inputs = {"x1": tensor_digest(x1), "x2": None if x2 is None else tensor_digest(x2)}
    return settings | {"model": digest.hexdigest()} | inputs


def tensor_digest(value: Tensor) -> str:
    """Of its type, shape and bits."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    content = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode())
    content.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return content.hexdigest()


def remove_work(path: Path) -> None:
    """Delete what only the making of a kernel needs."""
    shutil.rmtree(path / ".work", ignore_errors=True)


def _check(path: Path, known: dict[str, Any], identity: dict[str, Any]) -> None:
    words = {"model": "another model", "x1": "other inputs x1", "x2": "other inputs x2"}
    wrong = [words.get(name, f"other {name}") for name, value in identity.items() if known.get(name) != value]
    if wrong:
        raise InputError(f"{path} holds a kernel of {' and '.join(wrong)}: choose another place for out, or delete it")


def _settings(path: Path) -> dict[str, Any] | None:
    for name in ("zarr.json", "kernels.json"):
        try:
            content = json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found = (content.get("attributes", {}) if name == "zarr.json" else content).get(_MARK)
        if isinstance(found, dict):
            if found.get("format") != _FORMAT:
                raise InputError(f"{path} was written by another version of phenoscope")
            return found
    return None


def _create(
    path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, settings: dict[str, Any]
) -> zarr.Array:
    import zarr
    from zarr.codecs import Crc32cCodec

    return zarr.create_array(
        path, shape=shape, chunks=chunks, dtype=dtype, fill_value=float("nan"), compressors=[Crc32cCodec()],
        attributes={_MARK: {"format": _FORMAT} | settings}, config={"write_empty_chunks": True},
    )  # fmt: skip


def _numbers(value: Tensor) -> np.ndarray[Any, Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _file(array: zarr.Array, path: Path, i: int, j: int) -> Path:
    return path.joinpath("c", str(i), str(j), *["0"] * (array.ndim - 2))


def _is_there(array: zarr.Array, path: Path, i: int, j: int) -> bool:
    if not _file(array, path, i, j).exists():
        return False
    size = array.chunks[0], array.chunks[1]
    try:
        array[i * size[0] : (i + 1) * size[0], j * size[1] : (j + 1) * size[1]]
    except Exception:  # whatever a damaged file makes zarr raise: the block is made again
        return False
    return True


def _read(path: Path) -> Tensor:
    import zarr

    try:
        array = zarr.open_array(path, mode="r")
        counts = [-(-size // chunk) for size, chunk in zip(array.shape[:2], array.chunks[:2], strict=True)]
        places = [(i, j) for i in range(counts[0]) for j in range(counts[1])]
        missing = sum(not _file(array, path, *place).exists() for place in places)
        if missing == 0:
            return torch.from_numpy(np.asarray(array[...]))
    except Exception as error:  # whatever a damaged file makes zarr raise
        raise InputError(f"the kernel at {path} is damaged ({type(error).__name__}: {error}); make it again") from error
    raise InputError(f"{missing} of {len(places)} blocks of the kernel at {path} are missing: run the same call again")
