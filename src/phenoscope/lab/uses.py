"""Which functions of the toolbox a study calls."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

from .study import Study

_TOOLBOX = (
    *("data", "models", "train", "theory", "kernels", "landscape", "measure", "record", "prune", "represent"),
    *("explain", "robust", "stats"),
)


def uses(study: Study) -> list[str]:
    """The public functions that a study and its benches name, as `prune.snip`; read from the sources.

    Args:
        study: which.
    """
    left: list[ModuleType] = [m for m in (inspect.getmodule(study.conduct),) if m is not None]
    seen: set[str] = set()
    found: set[str] = set()
    while left:
        module = left.pop()
        if module.__name__ in seen or not module.__file__:
            continue
        seen.add(module.__name__)
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found |= _public(module, node.value.id, node.attr)
            elif isinstance(node, ast.ImportFrom) and node.module in _TOOLBOX:
                found |= {f"{node.module}.{each.name}" for each in node.names}
        left += [
            each
            for each in vars(module).values()
            if isinstance(each, ModuleType) and ".studies.benches." in each.__name__
        ]
    return sorted(found)


def _public(module: ModuleType, name: str, attribute: str) -> set[str]:
    """`name.attribute`, if `name` is a package of the toolbox in that module."""
    package = getattr(module, name, None)
    own = isinstance(package, ModuleType) and package.__name__.split(".")[1:] == [name]
    return {f"{name}.{attribute}"} if own and name in _TOOLBOX and not attribute.isupper() else set()
