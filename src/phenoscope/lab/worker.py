"""One cell: done with fixed threads and fixed seeds, here or in a process that reads cells from its input."""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.errors import InputError
from .seeds import seed_for
from .store import into_place, write_dataset

_THREADS = 1  # a result must not depend on how many cells run beside it


class Task(NamedTuple):
    """A cell to do: its function, what it is called with, and the folder that its result goes to."""

    function: Callable[..., xr.Dataset]
    lab: Any
    arguments: dict[str, Any]
    folder: Path
    words: str


def do(task: Task) -> xr.Dataset:
    """Do a cell; its seconds are kept with its result.

    Raises:
        InputError: it gives something else than a dataset.
    """
    begun = time.perf_counter()
    with isolated(seed_for(task.lab.root, task.function.__qualname__, task.words)):
        found = task.function(task.lab, **task.arguments)
    if isinstance(found, xr.DataArray):
        found = found.to_dataset(name=found.name or "value")
    if not isinstance(found, xr.Dataset):
        raise InputError(f"{task.function.__name__} must return an xarray.Dataset, not a {type(found).__name__}")
    return found.assign_attrs(cell_seconds=time.perf_counter() - begun)


def keep(task: Task, found: xr.Dataset, *, replace: bool) -> None:
    """Put a cell's result on disk."""
    with into_place(task.folder, replace=replace) as folder:
        write_dataset(folder, found)


def account(error: BaseException) -> str:
    """What went wrong, in one line, with the last place outside of libraries that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Fixed threads, and random states that begin at a seed; afterwards all as before."""
    from threadpoolctl import threadpool_limits

    torch: Any = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state() if torch else None
    threads = torch.get_num_threads() if torch else None
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- for code that draws from NumPy's global state
    if torch:
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
    try:
        with threadpool_limits(_THREADS):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)
            torch.set_num_threads(threads)


def serve() -> None:
    """Read tasks from standard input until it ends; keep each result, and answer "" or an account of the failure."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a study prints must not mix with the answers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tasks = sys.stdin.buffer
    sys.path[:] = pickle.load(tasks)
    while True:
        try:
            size = int.from_bytes(tasks.read(8), "big")
            if not size:
                return
            task, replace = pickle.loads(tasks.read(size))
            keep(task, do(task), replace=replace)
            answer = ""
        except Exception as error:
            answer = account(error)
        answers.write(pickle.dumps(answer))
        answers.flush()


def _end_with_parent() -> None:
    """A killed parent leaves nobody to work for."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
