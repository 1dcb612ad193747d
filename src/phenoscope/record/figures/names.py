"""Names of layers and runs as a figure shows them."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from ...core.errors import InputError
from ..run import Run


def label(name: object, longest: int = 40) -> str:
    """A name for plotly's labels: no markup, no control characters, the middle left out where it is very long."""
    text = readable(name)
    if len(text) > longest:
        tail = longest // 2
        text = f"{text[: longest - tail - 1]}…{text[-tail:]}"
    return html.escape(text, quote=False)


def readable(value: object) -> str:
    """Any value as text in which control characters, and those that reorder what stands around them, are spaces."""
    return "".join(" " if unicodedata.category(c)[0] == "C" and c not in "\n\t" else c for c in str(value))


def named(runs: Run | Sequence[Run]) -> list[tuple[str, Run]]:
    """Each run with a name of its own: the last part of its path, and as many more as it takes to tell them apart.

    Raises:
        InputError: there is no run.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    if not several:
        raise InputError("no run was given; pass at least one, as open_run gives it")
    paths = [run.path.resolve().parts for run in several]
    names = [_shortest(path, set(paths) - {path}) for path in paths]
    for i, name in enumerate(names):  # the same folder given twice
        if name in names[:i]:
            names[i] = f"{name} ({names[: i + 1].count(name)})"
    return list(zip(names, several, strict=True))


def _shortest(path: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    lengths = range(1, len(path) + 1)
    return "/".join(next(path[-n:] for n in lengths if all(path[-n:] != other[-n:] for other in others)))


def check_layers(layers: Sequence[str], runs: Sequence[Run]) -> None:
    """Raise InputError for a layer that no run has, or a single name where a list belongs."""
    if isinstance(layers, str):
        raise InputError(f"layers= takes a list of layer names, not the text {layers!r}")
    for name in layers:
        if not any(name in run.layers for run in runs):
            raise InputError(f"layers= names {name!r}, which no run has; see list(run)")
