"""Hands what is recorded on to experiment trackers, beside the training and beside the run on disk.

The writer's thread, which has the numbers on the host already, puts every record into one queue a sink; each sink has
a thread of its own. So a sink that is slow, hangs or fails holds up neither the training nor the run nor its
neighbors.

Python runs one thread at a time, though, and a training loop gives the word to another a hundred times a step: all
that a sink computes, the training waits for. So a sink's thread takes a small share of the time and rests in between,
and where it falls behind it gets every second record, every fourth, and so on, until it keeps up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import InputError, say
from .counts import unpack
from .layers import Layer
from .rows import Row, measures, number

Sink = Callable[[int, dict[str, float]], Any]

_QUEUE = 1024  # records that wait for a sink; beyond it, every second one is left out there
_MANY = 64  # records that a sink with a method `many` gets at once
_SHARE = 0.02  # of the time, which a sink may compute while the training goes on
_HEAVY = 4  # of those, how many may carry values by filter
_CLOSE_SECONDS = 60.0
_RECORDS_BETWEEN_HISTOGRAMS = 100


def checked(sinks: Iterable[Sink]) -> list[Sink]:
    """The sinks as a list.

    Raises:
        InputError: something among them cannot be called with (step, values).
    """
    if callable(sinks) or not isinstance(sinks, Iterable):
        raise InputError(f"sinks must be a list of callables (step, values), not {sinks!r}")
    listed = list(sinks)
    for sink in listed:
        if isinstance(sink, type) or not callable(sink):
            raise InputError(f"a sink is a callable (step, values), and {sink!r} is none; give an instance")
    return listed


class Item(NamedTuple):
    """A record for a sink: layer means (layers, 3) and values by filter, or `None`; and the scalars.

    One is rare that has a scalar which the record before lacks, as what is logged after every epoch.
    """

    step: int
    layers: Sequence[Layer]
    scalars: dict[str, float]
    means: np.ndarray | None
    filters: tuple[np.ndarray, np.ndarray] | None
    rare: bool = False

    @property
    def stays(self) -> bool:
        """Whether it is never left out."""
        return self.rare or self.filters is not None

    def values(self) -> dict[str, float]:
        """`distance/<layer>`, `distance_per_weight/<layer>`, `changed/<layer>`, `idle/<layer>`, and the scalars."""
        if self.means is None:
            return dict(self.scalars)
        channels, entries = np.array([layer.entries for layer in self.layers]).reshape(-1, 2).T
        distance, changed, moved = self.means.T
        columns = measures(distance, changed, moved, channels, entries)
        named = {
            f"{key}/{layer.name}": value
            for key, column in columns.items()
            for layer, value in zip(self.layers, column.tolist(), strict=True)
        }
        return named | self.scalars

    def histograms(self) -> dict[str, np.ndarray]:
        """`distance/<layer>`, `changed/<layer>`, `idle/<layer>` by filter, finite values only."""
        assert self.filters is not None
        distance, counts = self.filters
        named, start = {}, 0
        for layer in self.layers:
            part = slice(start, start + len(layer))
            start += len(layer)
            channels, entries = layer.entries
            changed, moved = unpack(counts[part], entries)
            columns = measures(distance[part].astype(np.float64), changed, moved, channels, entries)
            for key in ("distance", "changed", "idle"):
                finite = columns[key][np.isfinite(columns[key])]
                if len(finite):
                    named[f"{key}/{layer.name}"] = finite
        return named


class Sinks:
    """All sinks of one recorder.

    Args:
        sinks: callables `(step, values)`; one with a method `histograms(step, arrays)` gets the values by filter, too;
            one with a method `many([(step, values), ...])` gets by it what waits at the time, instead of by calls;
            and one with a method `close()` is closed at the end.
        every: updates between records.
        histograms_every: updates between values by filter; 0 for none; default 100 records.
    """

    def __init__(self, sinks: Sequence[Sink], *, every: int, histograms_every: int | None = None) -> None:
        self._every = _RECORDS_BETWEEN_HISTOGRAMS * every if histograms_every is None else histograms_every
        self._due = 0
        self._feeds = [_Feed(sink) for sink in sinks]

    def add(self, row: Row, layers: Sequence[Layer]) -> None:
        """Queue a measured record; never waits for a sink."""
        step = row.record.step
        scalars = {name: number(value) for name, value in row.record.scalars.items()}
        filters = None
        if self._every and step >= self._due and not row.gap:
            filters = (row.distance, row.counts)
            self._due = step - step % self._every + self._every
        item = Item(step, layers, scalars, None if row.gap else row.means, filters)
        for feed in self._feeds:
            feed.add(item)

    def close(self) -> None:
        """Let every sink take what waits and close; one that takes more than a minute is left behind."""
        for feed in self._feeds:
            feed.finish()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for feed in self._feeds:
            feed.join(deadline)


class _Feed:
    """The queue and the thread of one sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink: Sink | None = sink
        self._name = _name(sink)
        self._by_filter = callable(getattr(sink, "histograms", None))
        self._many = callable(getattr(sink, "many", None))
        self._queue: deque[Item] = deque()
        self._wake = threading.Condition()
        self._ending = threading.Event()
        self._closing = self._slow = False
        self._seen, self._stride = 0, 1  # every how many records one is taken
        self._names: set[str] = set()  # of the scalars of the record before
        self._thread = threading.Thread(target=self._work, name=f"phenoscope-{self._name}", daemon=True)
        self._thread.start()

    def add(self, item: Item) -> None:
        with self._wake:
            if self._closing or self._sink is None:
                return
            heavy = item.filters is not None
            if heavy and (not self._by_filter or sum(one.filters is not None for one in self._queue) >= _HEAVY):
                item = item._replace(filters=None)
            item = item._replace(rare=not item.scalars.keys() <= self._names)
            self._names = set(item.scalars)
            self._seen += 1
            if self._seen % self._stride and not item.stays:
                return
            self._queue.append(item)
            late = len(self._queue) > _QUEUE
            if late:
                self._thin()
            self._wake.notify_all()
        if late and not self._slow:
            self._slow = True
            say(f"sink {self._name} cannot keep up and misses records; the run on disk has all of them")

    def _thin(self) -> None:
        """Leave out every second record that waits and can be spared, and so from here on."""
        self._stride *= 2
        kept = [item for i, item in enumerate(self._queue) if i % 2 or item.stays]
        self._queue = deque(kept[-_QUEUE:])

    def finish(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._ending.set()

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            say(f"sink {self._name} is still busy after {_CLOSE_SECONDS:.0f} s and is left behind")

    def _work(self) -> None:
        share = 1.0  # the first time, which opens files and connections, needs no rest
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    break
                items = [self._queue.popleft() for _ in range(min(len(self._queue), _MANY if self._many else 1))]
                if not self._queue and self._stride > 1:
                    self._stride //= 2
            start = time.thread_time()
            self._guarded(lambda items=items: self._send(items))  # type: ignore[misc]
            del items
            self._ending.wait((time.thread_time() - start) * (1 / share - 1))
            share = _SHARE
        self._guarded(self._close)

    def _send(self, items: list[Item]) -> None:
        sink: Any = self._sink
        records = [(item.step, values) for item in items if (values := item.values())]
        if self._many and records:
            sink.many(records)
        elif not self._many:
            for step, values in records:
                sink(step, values)
        for item in items:
            if item.filters is not None:
                sink.histograms(item.step, item.histograms())

    def _close(self) -> None:
        close = getattr(self._sink, "close", None)
        if callable(close):
            close()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Whatever a sink does, it is said once, and nothing else notices."""
        if self._sink is None:
            return
        try:
            action()
        except Exception as error:
            with self._wake:
                self._sink = None
                self._queue.clear()
            say(
                f"sink {self._name} has stopped, recording and training go on ({type(error).__name__}: {error}); "
                "this is said once"
            )


def _name(sink: Any) -> str:
    return str(getattr(sink, "__name__", type(sink).__name__))
