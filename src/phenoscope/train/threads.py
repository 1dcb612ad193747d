"""Parts of a fleet side by side on CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

Map = Callable[..., Any]


@contextmanager
def side_by_side(threads: int) -> Iterator[Map]:
    """A `map` that works in so many threads, each of which computes on one core.

    Members do not wait for one another, so their threads meet once a step; threads that share an operation meet in
    every one, which takes longer than small operations do, and far longer where other programs want the cores too.
    """
    if threads < 2:
        yield map
        return
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map
        finally:
            torch.set_num_threads(before)  # a part of what the threads set holds for the whole process
