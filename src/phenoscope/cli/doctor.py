"""doctor: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib
import json as json_module
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import __version__


class Finding(NamedTuple):
    """What was looked at, how it is ("works", "missing" or "broken"), what was seen, and what to do about it."""

    name: str
    state: str
    seen: str
    advice: str = ""


# Optional: what it is for, and how it comes.
_OPTIONAL = {
    "ray": ("studies on a cluster (--engine ray)", "pip install 'phenoscope[ray]'"),
    "captum": ("comparing attributions in the tests", "pip install 'phenoscope[dev]'"),
    "jax": ("a peer in benchmarks/fleet.py", "pip install 'phenoscope[bench]'"),
}


def doctor(*, json: bool) -> int:
    """Examine this installation; 1 if something that every study needs does not work, else 0."""
    found = [_python(), *(_required(name) for name in _needed()), *map(_optional, _OPTIONAL)]
    found += [_tried(name, check) for name, check in _CHECKS.items()]
    broken = [each for each in found if each.state == "broken"]
    if json:
        print(json_module.dumps({"works": not broken, "findings": [each._asdict() for each in found]}, indent=1))
        return int(bool(broken))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "", "seen", "what to do"):
        table.add_column(column, no_wrap=not column)
    styles = {"works": "green", "missing": "yellow", "broken": "bold red"}
    for each in found:
        table.add_row(Text(each.name), Text(each.state, style=styles[each.state]), Text(each.seen), Text(each.advice))
    console = Console()
    console.print(table)
    console.print("Everything that the studies need works." if not broken else f"{len(broken)} things are broken.")
    return int(bool(broken))


def _python() -> Finding:
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    seen = f"{platform.python_version()} on {platform.system()}, phenoscope {__version__}"
    return Finding("python", "works" if fine else "broken", seen, "" if fine else "use Python 3.11 to 3.13")


def _needed() -> list[str]:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    return [
        requirement.name
        for requirement in map(Requirement, requires("phenoscope") or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _required(name: str) -> Finding:
    try:
        return Finding(name, "works", version(name))
    except PackageNotFoundError:
        return Finding(name, "broken", "not installed", f"pip install {name}")


def _optional(name: str) -> Finding:
    purpose, advice = _OPTIONAL[name]
    try:
        return Finding(name, "works", f"{version(name)}, for {purpose}")
    except PackageNotFoundError:
        return Finding(name, "missing", f"not installed; for {purpose}", advice)


def _tried(name: str, check: Callable[[], tuple[str, str, str]]) -> Finding:
    try:
        return Finding(name, *check())
    except Exception as error:  # whatever is wrong with this machine is what is asked for
        return Finding(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", "reinstall")


def _torch() -> tuple[str, str, str]:
    import torch

    x = torch.ones(2, 2, requires_grad=True)
    (x @ x).sum().backward()
    return "works", f"{torch.__version__}, {torch.get_num_threads()} threads", ""


def _cuda() -> tuple[str, str, str]:
    import torch

    if not torch.cuda.is_available():
        return "missing", "no CUDA device; the gpu presets need one", "install torch with CUDA where there is a GPU"
    torch.ones(8, device="cuda").sum().item()
    return "works", torch.cuda.get_device_name(), ""


def _torchvision() -> tuple[str, str, str]:
    try:
        seen = version("torchvision")
    except PackageNotFoundError:
        return "works", "not installed, and not needed", ""
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        return "broken", f"{seen} does not fit this torch: {str(error)[:80]}", "pip uninstall torchvision"
    return "works", seen, ""


def _disk() -> tuple[str, str, str]:
    import shutil

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        (Path(folder) / "a").write_text("a", encoding="utf-8")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    enough = free > 1
    return (
        "works" if enough else "broken",
        f"{free:.0f} GiB free here",
        "" if enough else "make room: results are written here",
    )


def _engine() -> tuple[str, str, str]:
    import xarray as xr

    from ..lab import Lab
    from ..lab.local import local
    from ..lab.map import Keeper

    with tempfile.TemporaryDirectory() as folder:
        keeper = Keeper(Path(folder), lambda tasks, replace: local(tasks, jobs=2, replace=replace), "doctor")
        found = Lab(0, keeper=keeper).map(cell, [{"number": 1}, {"number": 2}])
    fine = [int(each["value"]) for each in found] == [1, 2] and all(isinstance(each, xr.Dataset) for each in found)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "works" if fine else "broken", f"two cells on two processes; {cores} cores", ""


def cell(lab: Any, *, number: int) -> Any:
    """The smallest cell there is."""
    import xarray as xr

    return xr.Dataset({"value": number})


def _catalogue() -> tuple[str, str, str]:
    from ..catalogue import entries, is_ready

    found = entries()
    return "works", f"{len(found)} papers, {sum(map(is_ready, found))} studies", ""


_CHECKS = {
    "tensors": _torch,
    "CUDA": _cuda,
    "torchvision": _torchvision,
    "disk": _disk,
    "catalogue": _catalogue,
    "processes": _engine,
}
