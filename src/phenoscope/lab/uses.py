"""Which functions of the toolbox a study calls."""

from __future__ import annotations

import ast
import sys
from types import ModuleType

from .sources import study_files
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
    found: set[str] = set()
    for name, source in study_files(study.conduct.__module__).items():
        module = sys.modules.get(name)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found |= _public(module, node.value.id, node.attr)
            elif isinstance(node, ast.ImportFrom) and node.module in _TOOLBOX:
                found |= {f"{node.module}.{each.name}" for each in node.names}
    return sorted(found)


def _public(module: ModuleType | None, name: str, attribute: str) -> set[str]:
    """`name.attribute`, if `name` is a package of the toolbox in that module."""
    package = getattr(module, name, None)
    own = isinstance(package, ModuleType) and package.__name__.split(".")[1:] == [name]
    return {f"{name}.{attribute}"} if own and name in _TOOLBOX and not attribute.isupper() else set()
