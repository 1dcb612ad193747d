"""Progress on the terminal: a bar where somebody looks, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on standard error; gives `advance(done, total, note)`.

    Off a terminal: a line when it begins, then one every ten seconds.
    """
    console = Console(file=sys.stderr, quiet=quiet)
    if not console.is_terminal:
        yield _lines(console, title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, note="")

        def advance(done: int, total: int | None, note: object = "") -> None:
            text = f"loss {note:.3f}" if isinstance(note, float) else str(note)
            bars.update(task, completed=done, total=total, note=text)

        yield advance


def _lines(console: Console, title: str) -> Callable[..., None]:
    begun = time.monotonic()
    said: list[float] = []

    def advance(done: int, total: int | None, note: object = "") -> None:
        now = time.monotonic()
        if said and now - said[-1] < _SECONDS_BETWEEN_LINES:
            return
        text = title
        if said and total:
            rest = (now - begun) * (total - done) / done if done else None
            text += f": {done} of {total}" + (f", about {rest:.0f} s left" if rest is not None else "")
        said.append(now)
        console.print(text, highlight=False, markup=False)

    return advance
