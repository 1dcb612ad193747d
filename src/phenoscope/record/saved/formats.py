"""Reads the weights in one checkpoint file, running no code that the file may carry.

Weights are mapped from the file wherever its format allows it, so that reading takes hardly any memory.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import InputError
from ..layers import clean_name

_LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # torch's magic number, in the first bytes of its format before 1.6

# Where training scripts put the weights, and the number of updates, in what they save.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network", "weights", "params",
            "ema", "model_ema", "ema_state_dict", "state_dict_ema")  # fmt: skip
_STEPS = ("global_step", "step", "iteration", "epoch")


class Contents(NamedTuple):
    """The weights of a checkpoint by name, and the step that it says it is of, if it does."""

    weights: dict[str, Tensor]
    step: int | None


def read_file(path: Path) -> Contents:
    """The weights of one file by name, without what torch.compile and checkpointing put into names.

    Raises:
        InputError: the file is damaged, needs pickle, or holds no weights.
    """
    try:
        if not path.stat().st_size:
            raise InputError(f"{path} is empty")
        contents, facts = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    weights = _weights_in(contents)
    if not weights:
        raise InputError(f"{path} holds no weights: no tensors by name, there or under 'state_dict', 'model' ...")
    return Contents(weights, step_in(facts))


def natural(name: str) -> list[Any]:
    """A key that sorts names by the numbers in them: layer2 before layer10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d{1,18})", name, flags=re.ASCII))]


def _safetensors(path: Path) -> tuple[Any, Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return in_natural_order(weights), file.metadata() or {}
    except Exception as error:  # a damaged or hostile file may raise anything
        raise InputError(f"{path} is damaged or no safetensors file: {error}") from error


def in_natural_order(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors files and indices lose the order of the network: the natural order of names comes nearest."""
    return {name: weights[name] for name in sorted(weights, key=natural)}


def _torch(path: Path) -> tuple[Any, Any]:
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"\x80") and _LEGACY not in head:
        raise _needs_pickle(path, "a plain pickle")
    if not head.startswith((b"PK", b"\x80")):
        raise InputError(f"{path} is damaged, or was not written by torch.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of ends as an error here, or does not matter
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=_mappable(path))
    except Exception as error:  # a damaged or hostile file may raise anything
        refused = re.search(r"GLOBAL (\S{1,200})", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise _needs_pickle(path, refused[1]) from error
        if "DTensor" in str(error):
            raise InputError(f"{path} holds DTensors, which are shards: save the full state dict instead") from error
        if "TorchScript" in str(error):
            raise _needs_pickle(path, "a TorchScript archive") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's first line is about its own options
            reason = "its pickle is not one of plain values and tensors"
        raise InputError(f"{path} is damaged or cut short: {reason}") from error
    return contents, contents


def _mappable(path: Path) -> bool:
    """Whether tensors can be used where they lie in the file: torch's zip format, not compressed."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())


def _needs_pickle(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} needs pickle, which can run code: {what!a} is refused. Load it where you trust it, and save "
        f"the weights with safetensors.torch.save_model(model, '{path.stem}.safetensors')"
    )


def _weights_in(contents: Any) -> dict[str, Tensor]:
    """The first mapping of names to tensors, under one of the usual keys or the contents themselves."""
    if not isinstance(contents, Mapping):
        return {}
    for part in [*(contents.get(key) for key in _WEIGHTS), contents]:
        if isinstance(part, Mapping):
            tensors = {k: v.detach() for k, v in part.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if tensors:
                return {clean_name(name): tensor for name, tensor in tensors.items() if tensor.layout == torch.strided}
    return {}


def step_in(facts: Any) -> int | None:
    """The number of updates (else of epochs) that a checkpoint says it was saved after."""
    if isinstance(facts, Mapping):
        for key in _STEPS:
            value = facts.get(key)
            if isinstance(value, Tensor) and value.numel() == 1:
                value = value.item()
            if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value, re.ASCII):
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62:
                return value
    return None
