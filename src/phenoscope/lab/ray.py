"""Cells on a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import xarray as xr

from ..core.errors import InputError
from .local import Answer
from .worker import Task, account, do, keep


def on_ray(tasks: Sequence[Task], *, address: str | None, jobs: int | None, replace: bool) -> Iterator[Answer]:
    """Do cells on a Ray cluster, one core each; results travel back and are kept on this machine's disk.

    A worker or a node that dies takes nothing with it: Ray does its cells again elsewhere. Every node needs the
    package, and the modules behind `--model` and `--data`, at the same places.

    Args:
        tasks: the cells.
        address: of the cluster, "auto" for the one of this machine; `None` starts one here, and ends it afterwards.
        jobs: how many cells at once; by default as many as the cluster has cores.
        replace: whether a result that is on disk already is replaced.

    Returns:
        For every cell as it ends: its number, and "" or an account of what went wrong.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise InputError(f"no Ray cluster at {address}: start one with `ray start --head`") from error
    try:
        yield from _done(ray, tasks, jobs, replace)
    finally:
        if own:
            ray.shutdown()


def _done(ray: Any, tasks: Sequence[Task], jobs: int | None, replace: bool) -> Iterator[Answer]:
    remote = ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)(attempt)
    waiting = list(range(len(tasks)))
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and (jobs is None or len(running) < jobs):
            number = waiting.pop(0)
            running[remote.remote(tasks[number])] = number
        (ended,), _ = ray.wait(list(running), num_returns=1)
        number = running.pop(ended)
        try:
            found = ray.get(ended)
            if isinstance(found, xr.Dataset):
                keep(tasks[number], found, replace=replace)
            yield number, found if isinstance(found, str) else ""
        except ray.exceptions.RayError as error:
            yield number, account(error)


def attempt(task: Task) -> xr.Dataset | str:
    """A cell's result, or an account of its failure."""
    try:
        return do(task)
    except Exception as error:
        return account(error)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("the ray engine needs Ray: pip install 'phenoscope[ray]'") from error
    return ray
