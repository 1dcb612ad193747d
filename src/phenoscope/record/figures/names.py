"""Names of layers and runs as a figure shows them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ...core.errors import InputError
from ..run import Run


def label(name: object, longest: int = 40) -> str:
    """A name for plotly's labels: no markup, no control characters, the middle left out where it is very long."""
    text = "".join(c if c.isprintable() else " " for c in str(name))
    if len(text) > longest:
        tail = longest // 2
        text = f"{text[: longest - tail - 1]}…{text[-tail:]}"
    return html.escape(text, quote=False)


def named(runs: Run | Sequence[Run]) -> list[tuple[str, Run]]:
    """Each run with a name of its own: the last part of its path, and as many more as it takes to tell them apart.

    Raises:
        InputError: there is no run.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    if not several:
        raise InputError("no run was given; pass at least one, as open_run gives it")
    parts = [run.path.resolve().parts for run in several]
    names = [path[-1] for path in parts]
    for length in range(2, max(map(len, parts)) + 1):
        if len(set(names)) == len(names):
            break
        longer = ["/".join(path[-length:]) for path in parts]
        names = [more if names.count(name) > 1 else name for name, more in zip(names, longer, strict=True)]
    for i, name in enumerate(names):  # the same folder given twice
        if name in names[:i]:
            names[i] = f"{name} ({names[: i + 1].count(name)})"
    return list(zip(names, several, strict=True))


def check_layers(layers: Sequence[str], runs: Sequence[Run]) -> None:
    """Raise InputError for a layer that no run has, or a single name where a list belongs."""
    if isinstance(layers, str):
        raise InputError(f"layers= takes a list of layer names, not the text {layers!r}")
    for name in layers:
        if not any(name in run.layers for run in runs):
            raise InputError(f"layers= names {name!r}, which no run has; see list(run)")
