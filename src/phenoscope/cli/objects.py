"""What the user names on the command line: `package.module:function`, devices."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError


def named_object(spec: str, option: str) -> Any:
    """The object that `package.module:name` names; modules in the current folder are found, too."""
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise InputError(f"{option} {spec!r}: write package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{option} {spec!r}: {module_name} cannot be imported ({error})") from error
    for word in name.split("."):
        if not hasattr(target, word):
            raise InputError(f"{option} {spec!r}: {module_name} has no {name}")
        target = getattr(target, word)
    return target


def build_model(spec: str) -> nn.Module:
    """The network that `--model` names: a module, or what a function gives."""
    target = named_object(spec, "--model")
    model = target() if not isinstance(target, nn.Module) and callable(target) else target
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {spec!r} gives {type(model).__name__}, not a torch.nn.Module")
    return model


def load_data(spec: str) -> Any:
    """The held-out data that `--data` names: (x, y), a loader, or the held-out part of a `Split`."""
    from ..data import Split

    target = named_object(spec, "--data")
    data = target() if callable(target) and not hasattr(target, "__iter__") else target
    if isinstance(data, Split):
        return data.validation if data.validation is not None else data.test
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    if not pair and not hasattr(data, "__iter__"):
        raise InputError(
            f"--data {spec!r} gives {type(data).__name__}: a pair of tensors (x, y), a loader or a Split is needed"
        )
    return tuple(data) if pair else data


def checked_device(name: str) -> torch.device:
    """The device of that name, if this machine has it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
