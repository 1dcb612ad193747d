"""Finds the checkpoints of a directory, and reads those that are folders or several shards."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path

from torch import Tensor

from ...core.errors import InputError
from ..layers import clean_name
from .formats import Contents, in_natural_order, natural, read_file, step_in

_FILES = (".pt", ".pth", ".ckpt", ".safetensors")
_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SHARD = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})\.safetensors", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: a file, a folder, or several shards that lie side by side.

    Attributes:
        name: of the file or folder; of shards, what their names have in common.
        path: the file or folder; of shards, the first.
        shards: the shards, in order.
    """

    name: str
    path: Path
    shards: tuple[Path, ...] = ()


def find_checkpoints(directory: Path) -> list[Checkpoint]:
    """The checkpoints that lie in a directory, in the natural order of their names.

    Raises:
        InputError: no such directory, or no checkpoint in it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is no directory")
    found: list[Checkpoint] = []
    shards: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir(), key=lambda path: natural(path.name)):
        shard = _SHARD.fullmatch(path.name)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name.startswith("checkpoint-") or any((path / name).is_file() for name in _FOLDER):
                found.append(Checkpoint(path.name, path))
        elif shard:
            shards.setdefault(shard[1], []).append(path)
        elif path.suffix in _FILES:
            found.append(Checkpoint(path.name, path))
    found += [Checkpoint(name, paths[0], tuple(paths)) for name, paths in shards.items()]
    if not found:
        raise InputError(f"{directory} holds no checkpoints: no {', '.join(_FILES)} files and no checkpoint-* folders")
    return sorted(found, key=lambda each: natural(each.name))


def read_checkpoint(checkpoint: Checkpoint) -> Contents:
    """The weights of a checkpoint; names without what torch.compile and checkpointing put into them.

    Raises:
        InputError: the checkpoint is damaged, needs pickle, or holds no weights; the message names the file.
    """
    if checkpoint.shards:
        numbers = [_SHARD.fullmatch(path.name) for path in checkpoint.shards]
        total = max(int(number[3]) for number in numbers if number)
        if len(numbers) != total:
            raise InputError(f"{checkpoint.path}: {len(numbers)} of {total} shards are there")
        weights: dict[str, Tensor] = {}
        for path in checkpoint.shards:
            weights |= read_file(path).weights
        return Contents(in_natural_order(weights), None)
    return _folder(checkpoint.path) if checkpoint.path.is_dir() else read_file(checkpoint.path)


def _folder(folder: Path) -> Contents:
    """A folder as Hugging Face's `save_pretrained` and `Trainer` write it."""
    file = next((folder / name for name in _FOLDER if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"{folder} holds no weights (no {', '.join(_FOLDER)})")
    weights = _indexed(file) if file.suffix == ".json" else read_file(file).weights
    step = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        step = step_in(json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")))
    return Contents(weights, step)


def _indexed(index: Path) -> dict[str, Tensor]:
    """The weights that an index of shards lists. A shard is a file beside the index and nothing else."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        where = {name: str(shard) for name, shard in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of shards: {error!r}") from error
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(where.values())):
        if shard in ("", ".", "..") or re.search(r"[/\\:\0]", shard):
            raise InputError(f"{index} points outside its folder, to {shard!r}: refused")
        if not (index.parent / shard).is_file():
            raise InputError(f"{index} lists the shard {shard!r}, which is missing")
        held = read_file(index.parent / shard).weights
        for name in (name for name, place in where.items() if place == shard):
            if clean_name(name) not in held:
                raise InputError(f"{index} lists {name!r} in {shard!r}, which lacks it")
            weights[clean_name(name)] = held[clean_name(name)]
    return in_natural_order(weights)
