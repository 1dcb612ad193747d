"""Optional dependencies: imported where they are used, or a word on what to install."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str) -> Any:
    """Import an optional dependency.

    Args:
        module: dotted name.
        extra: the extra of this package that brings it.

    Raises:
        ImportError: it is not installed; the message says which extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the module is there, and lacks something itself
        raise ImportError(f"{module} is not installed: pip install 'phenoscope[{extra}]'") from error
