"""What a result depends on besides its parameters: the sources of the study, of its benches, of the user's objects."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError

_OWN = __name__.split(".")[0]


def study_files(module: str) -> dict[str, bytes]:
    """The sources of a study and of every bench that it imports, directly or through another, by module.

    Args:
        module: dotted name.
    """
    seen: dict[str, bytes] = {}
    left = [module]
    while left:
        name = left.pop()
        file = _file(name)
        if name in seen or file is None:
            continue
        seen[name] = file.read_bytes()
        left += [each for each in _imported(name, seen[name]) if each.startswith(f"{_OWN}.studies.")]
    return seen


def study_sources(module: str) -> str:
    """A digest of `study_files`."""
    digest = hashlib.sha256()
    for name, source in sorted(study_files(module).items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return digest.hexdigest()


def address(value: Any) -> Any:
    """A value as JSON that is the same if and only if the value is: what cells and results are found by.

    Functions and classes are named by their module; those outside of this package also by their source, so that a
    change of the user's model is a change of the parameter.

    Raises:
        InputError: a value that has no such form.
    """
    if isinstance(value, np.generic):
        return address(value.item())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list, range)):
        return [address(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): address(each) for name, each in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, functools.partial):
        return {"partial": address(value.func), "args": address(value.args), "keywords": address(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}" + _own_source(value)
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    raise InputError(
        f"a {type(value).__name__} cannot be a parameter here: numbers, text, functions, arrays and lists of them can"
    )


def plain(value: Any) -> Any:
    """A value as people read it: functions by name, arrays by shape."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list, range)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, functools.partial):
        settings = ", ".join(f"{name}={plain(each)}" for name, each in value.keywords.items())
        return f"{plain(value.func)}({settings})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    if hasattr(value, "shape"):
        return f"array of shape {tuple(value.shape)}"
    return repr(value)


def _own_source(value: Any) -> str:
    if value.__module__.split(".")[0] == _OWN:
        return ""
    try:
        file = inspect.getsourcefile(value)
        content = Path(file).read_bytes() if file else inspect.getsource(value).encode()
    except (TypeError, OSError):  # made in an interactive session
        code = getattr(value, "__code__", None)
        content = b"" if code is None else code.co_code + repr(code.co_consts).encode()
    return "@" + hashlib.sha256(content).hexdigest()


def _file(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            return None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _imported(module: str, source: bytes) -> list[str]:
    """Modules that a source imports, and names that may be modules."""
    package = module.split(".")[:-1]
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            names += [".".join(base), *(".".join([*base, each.name]) for each in node.names)]
    return names
