"""Where a result comes from."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from .sources import plain

_PACKAGES = ("torch", "numpy", "scipy", "xarray", "scikit-learn")


def versions() -> dict[str, str]:
    """This package's version and those of what it computes with."""
    found = {"phenoscope": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def provenance(parameters: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """What was run, with what, when and where.

    Args:
        parameters: of the experiment.
        facts: further ones, taken over as they are: seed, preset, key, seconds ...
    """
    return {
        "parameters": plain(parameters),
        "versions": versions(),
        "platform": platform.platform(),
        "machine": _machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **facts,
    }


def _machine() -> str:
    """The processor, by the name that people know it by."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    torch: Any = sys.modules.get("torch")
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    return f"{cores} cores of {name}{gpu}"
