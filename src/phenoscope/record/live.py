"""What a recorder shows while training: the layers that move most, and those that have stopped."""

from __future__ import annotations

import math
import sys
import threading
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

_SECONDS_BETWEEN_TABLES = 0.5
_SECONDS_BETWEEN_LINES = 10.0
_MOVING, _STOPPED = 6, 4  # layers shown of either kind
_STILL = 3  # records without a changed entry after which a layer counts as stopped

_screen = threading.Lock()  # one table at a time on a terminal


class Live:
    """A sink that shows a small table on a terminal, at most twice a second, and a line every ten seconds elsewhere.

    Layers are ordered by distance per weight, so that large and small ones compare. A layer has stopped when no entry
    of it moved by more than its threshold in three records one after the other; it is named with the update since
    which that is so.

    Args:
        title: stands above the table.
        console: default: standard error.
    """

    def __init__(self, title: str, *, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console(file=sys.stderr)
        self._still: dict[str, tuple[int | None, int]] = {}  # layer -> last update at which it moved, records since
        self._before: int | None = None
        self._values: dict[str, float] = {}
        self._fresh = False
        self._shown = -math.inf
        self._screen: Screen | None = None
        if self._console.is_terminal and _screen.acquire(blocking=False):
            self._screen = Screen(console=self._console, auto_refresh=False)
            self._screen.start()

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Take up the values of a record, and show them if it is time."""
        for layer, changed in _of(values, "changed").items():
            if changed == 0:
                last, records = self._still.get(layer, (self._before, 0))
                self._still[layer] = last, records + 1
            else:
                self._still.pop(layer, None)
        self._before, self._fresh = step, True
        self._values |= values  # what was logged before stays in sight
        wait = _SECONDS_BETWEEN_LINES if self._screen is None else _SECONDS_BETWEEN_TABLES
        if time.monotonic() - self._shown >= wait:
            self._show()

    def close(self) -> None:
        """Show the last record, and give the terminal back."""
        if self._fresh:
            self._show()
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.stop()
            _screen.release()

    def _show(self) -> None:
        self._fresh, self._shown = False, time.monotonic()
        if self._screen is None:
            self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)
        else:
            self._screen.update(self.table(), refresh=True)

    def table(self) -> Table:
        """The table after the latest record."""
        moving, stopped = self._ranked()
        caption = " · ".join([f"update {self._before}", *_scalars(self._values)])
        table = Table(
            title=Text(self._title),
            caption=Text(caption),
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
        )
        table.add_column("layer", overflow="ellipsis", no_wrap=True)
        for name in ("distance per weight", "changed", "idle"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer, distance in moving[:_MOVING]:
            share = [_percent(self._values.get(f"{key}/{layer}", math.nan)) for key in ("changed", "idle")]
            table.add_row(Text(layer), f"{distance:.2e}", *share)
        if len(moving) > _MOVING:
            table.add_row(Text(f"and {len(moving) - _MOVING} that move less", style="dim"))
        table.add_section()
        for layer, since in stopped[:_STOPPED]:
            table.add_row(Text(layer), Text(f"stopped {_since(since)}", style="dim"))
        if len(stopped) > _STOPPED:
            table.add_row(Text(f"and {len(stopped) - _STOPPED} that stopped before", style="dim"))
        return table

    def line(self) -> str:
        """The same as one line."""
        moving, stopped = self._ranked()
        parts = [f"{self._title}: update {self._before}", *_scalars(self._values)]
        if moving:
            parts.append("most: " + ", ".join(f"{layer} {distance:.1e}" for layer, distance in moving[:3]))
        if stopped:
            named = ", ".join(f"{layer} {_since(since)}" for layer, since in stopped[:3])
            parts.append(f"stopped: {len(stopped)} of {len(moving) + len(stopped)} layers ({named})")
        return "; ".join(parts)

    def _ranked(self) -> tuple[list[tuple[str, float]], list[tuple[str, int | None]]]:
        """Moving layers by distance per weight (NaN and infinite ones first), and stopped ones, the latest first."""
        since = {layer: last for layer, (last, records) in self._still.items() if records >= _STILL}
        distances = _of(self._values, "distance_per_weight")
        moving = [(layer, distance) for layer, distance in distances.items() if layer not in since]
        stopped = sorted(since.items(), key=lambda pair: -1 if pair[1] is None else pair[1], reverse=True)
        moving.sort(key=lambda pair: pair[1] if math.isfinite(pair[1]) else math.inf, reverse=True)
        return moving, stopped


def _of(values: dict[str, float], measure: str) -> dict[str, float]:
    """The values of one measure, by layer."""
    start = f"{measure}/"
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _scalars(values: dict[str, float]) -> list[str]:
    measured = ("distance/", "distance_per_weight/", "changed/", "idle/")
    return [f"{name} {value:.4g}" for name, value in values.items() if not name.startswith(measured)][:6]


def _since(step: int | None) -> str:
    return "from the start" if step is None else f"at {step}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
