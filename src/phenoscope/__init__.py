"""Phenoscope: see how neural networks learn.

Public names load when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PACKAGES = (
    "catalogue",
    "data",
    "explain",
    "kernels",
    "lab",
    "landscape",
    "measure",
    "models",
    "prune",
    "record",
    "report",
    "represent",
    "robust",
    "stats",
    "theory",
    "train",
)
_NAMES = {"Recorder": "record", "open_run": "record", "run": "lab"}

__all__ = [
    "Recorder",
    "__version__",
    "catalogue",
    "data",
    "explain",
    "kernels",
    "lab",
    "landscape",
    "measure",
    "models",
    "open_run",
    "prune",
    "record",
    "report",
    "represent",
    "robust",
    "run",
    "stats",
    "theory",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
