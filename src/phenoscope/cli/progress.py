"""Progress on the terminal, or nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on standard error; gives `advance(done, total, text)`. Off a terminal: one line, once it begins."""
    console = Console(file=sys.stderr, quiet=quiet)
    if not console.is_terminal:
        said: list[bool] = []

        def begin(*_: object) -> None:
            if not said:
                said.append(True)
                console.print(title, highlight=False, markup=False)

        yield begin
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
