"""Weights in safetensors files: nothing is ever unpickled, and a tensor that goes by two names is kept once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import InputError


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, beside and renamed into place."""
    from safetensors.torch import save_file

    first: dict[tuple[object, ...], str] = {}
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            own[name] = tensor.clone(memory_format=torch.contiguous_format)  # views and tied memory made independent
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    save_file(own, beside, metadata={"aliases": json.dumps(aliases)})
    beside.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, those that shared one entry sharing it again.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return tensors | {name: tensors[other] for name, other in aliases.items() if other in tensors}
