"""Blocks of a kernel on the processes and machines of an engine; every cell is the place of a block."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import xarray
from safetensors.torch import load_file, save_file
from torch import nn

from ...core.errors import InputError
from ...lab.local import local
from ...lab.map import Keeper, Lab
from ...lab.ray import on_ray
from .blocks import Blocks
from .choose import tangents
from .store import put, remove_work
from .tiles import full_precision

Engine = Literal["local", "ray"] | Lab
_CARD: list[int] = []  # the card of this process, once it has done a block


def on_engine(
    path: Path,
    model: nn.Module,
    make: Blocks,
    settings: dict[str, Any],
    engine: Engine,
    jobs: int | None,
    places: list[tuple[int, int]],
    tell: Callable[[int], object],
) -> None:
    """Make blocks by `lab.map`. The network and the inputs are written once, under their digests, beside the array.

    Args:
        path: of the array, on a disk that all machines see.
        model: the network.
        make: what makes a block here.
        settings: of `tangents`.
        engine: "local", "ray", or the lab of an experiment.
        jobs: processes at once.
        places: of the blocks.
        tell: called with the number of blocks that are done.

    Raises:
        InputError: a network that other processes cannot load.
        CellError: blocks failed; the others are kept.
    """
    work = path / ".work"
    work.mkdir(exist_ok=True)
    inputs = {name: x.detach().cpu().contiguous() for name, x in (("x1", make.x1), ("x2", make.x2)) if x is not None}
    data = work / "inputs.safetensors"
    save_file(inputs, data)
    named = {"out": str(path.resolve()), "model": _written(work, model), "inputs": _digest(data.read_bytes())}
    named |= settings | {"chunk": make.block}
    cells = [named | {"row": i, "column": j, "number": k} for k, (i, j) in enumerate(places)]
    device = next(model.parameters()).device.type
    lab = engine if isinstance(engine, Lab) else _lab(engine, jobs, device, work, tell)
    lab.map(block_of, cells)
    remove_work(path)


def block_of(
    lab: Lab, *, out: str, model: str, inputs: str, row: int, column: int, number: int, **settings: Any
) -> xarray.Dataset:
    """Make one block and put it in its place; what comes back only says that it is there."""
    import zarr

    device = lab.device
    if device == "cuda" and torch.cuda.device_count() > 1:
        if not _CARD:
            _CARD.append(number % torch.cuda.device_count())
        device = f"cuda:{_CARD[0]}"
    make = _maker(out, model, inputs, device, tuple(sorted(settings.items())))
    with full_precision():
        put(zarr.open_array(out, mode="r+"), make, row, column)
    return xarray.Dataset({"done": True})


@functools.lru_cache(maxsize=1)
def _maker(out: str, model: str, inputs: str, device: str, settings: tuple[tuple[str, Any], ...]) -> Blocks:
    work = Path(out) / ".work"
    content = (work / "model.pt").read_bytes()
    data = work / "inputs.safetensors"
    # loading a network runs code, so that it must be the one that was written when the blocks were given out
    if _digest(content) != model or _digest(data.read_bytes()) != inputs:
        raise InputError(f"what stands in {work} is not what this kernel is made of: delete that folder and run again")
    network = torch.load(io.BytesIO(content), map_location=device, weights_only=False)
    tensors = load_file(data)
    return tangents(network, tensors["x1"], tensors.get("x2"), **dict(settings))


def _written(work: Path, model: nn.Module) -> str:
    content = io.BytesIO()
    try:
        torch.save(model, content)
    except Exception as error:  # whatever pickling raises
        raise InputError(f"this network cannot be sent to other processes: {error}") from error
    found = content.getvalue()
    if b"__main__" in found:
        raise InputError("the network's classes stand in a script: put them in a module, so that processes find them")
    (work / "model.pt").write_bytes(found)
    return _digest(found)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lab(engine: str, jobs: int | None, device: str, work: Path, tell: Callable[[int], object]) -> Lab:
    cards = torch.cuda.device_count() if device == "cuda" else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if engine == "local":
        does = functools.partial(local, jobs=jobs or cards or cores)
    elif engine == "ray":
        does = functools.partial(on_ray, address=None, jobs=jobs)
    else:
        raise InputError(f'engine must be "local", "ray" or a lab, not {engine!r}')
    keeper = Keeper(work / "cells", does, "", fresh=True, progress=lambda done, _, __: tell(done))
    return Lab(0, device, keeper=keeper)
