"""Writes docs/api/: one page a package, every public name where it is defined. Run it when a public name comes or goes.

A function often bears the name of its file, so that `phenoscope.prune.snip` is ambiguous to a reader of sources; the
pages name `phenoscope.prune.snip.snip`.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import phenoscope

PAGES = Path(__file__).parents[1] / "docs" / "api"


def pages() -> dict[str, str]:
    """The pages' texts by file name."""
    return {f"{name}.md": page(importlib.import_module(f"phenoscope.{name}")) for name in phenoscope._PACKAGES}


def page(package: ModuleType) -> str:
    """A package's page."""
    lines = [f"# {package.__name__}", "", (package.__doc__ or "").strip(), ""]
    for name in package.__all__:
        thing = getattr(package, name)
        if isinstance(thing, ModuleType):
            lines += [f"## {name}", "", (thing.__doc__ or "").strip(), ""]
            lines += [entry(getattr(thing, each), each, level=3) for each in thing.__all__]
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            lines.append(entry(thing, name))
    return "\n".join(lines).rstrip() + "\n"


def entry(thing: type, name: str, *, level: int = 2) -> str:
    """A class or function, from where it is defined."""
    return f"::: {thing.__module__}.{thing.__qualname__}\n    options: {{heading: {name}, heading_level: {level}}}\n"


if __name__ == "__main__":
    for file, text in pages().items():
        (PAGES / file).write_text(text, encoding="utf-8")
