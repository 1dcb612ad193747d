"""Writes a run beside the training: a background thread, a journal, and arrays that only grow."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import say
from .layers import Layer
from .ledger import Ledger
from .passes.watched import Moved
from .rows import Record, Row, measured
from .seen import Look
from .sinks import Sinks
from .tensors import save_tensors

_FLUSH_SECONDS = 2.0
_FLUSH_RECORDS = 256
_SETTLE_SECONDS = 0.5  # a record this young may still be given scalars
_BATCH = 32  # records after which the thread measures what waits, so that device buffers come free
_QUEUE = 512


class RunWriter:
    """A run being written.

    Args:
        path: the folder; made if need be.
        layers: each layer with its threshold.
        metadata: facts for `run.json`, beside the time and the versions.
        max_bytes: bound on the values by filter; beyond it they are kept ever more rarely (layer means never are).
        resume: go on with the run that is there; records after `step` are dropped.
        step: with `resume`, the number of updates already made; default: the run's last record.

    Raises:
        InputError: there is a run and neither `resume` nor `overwrite`; or a run with other layers.
        OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        path: Path | str,
        layers: list[tuple[Layer, float]],
        metadata: Mapping[str, Any],
        *,
        max_bytes: float = 2e9,
        overwrite: bool = False,
        resume: bool = False,
        step: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.failed: str | None = None
        self._ledger = Ledger(
            self.path, layers, metadata, max_bytes=max_bytes, overwrite=overwrite, resume=resume, step=step
        )
        self.last_step, self.resumed, self.shapes = self._ledger.last_step, self._ledger.resumed, self._ledger.shapes
        self._queue: deque[Record | Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._wanted = self._closing = self._interrupted = False
        self._pending: list[Row] = []  # measured, not yet on disk
        self._looks: list[Look] = []  # nor these
        self._end = 0
        self._stuck = False  # the last commit failed
        self._flushed = time.monotonic()
        self._not_finite = False
        self._sinks: Sinks | None = None
        self._thread = threading.Thread(target=self._work, name="phenoscope-writer", daemon=True)
        self._thread.start()

    def add(
        self, step: int, moved: Moved | Callable[[], Moved] | None, scalars: dict[str, Any] | None = None
    ) -> Record:
        """Queue a record; `None` instead of numbers marks a gap. Scalars may be added to the record for a moment."""
        numbers = moved if moved is None or callable(moved) else (lambda: moved)
        record = Record(step, numbers, scalars or {}, self._ledger.filters, len(self._ledger.layers))
        self._put(record)
        self.last_step = step
        return record

    def follow(self, sinks: Sinks) -> None:
        """Hand every record from here on to these sinks, too; they are closed with the run."""
        self._sinks = sinks

    def add_layer(self, layer: Layer, threshold: float) -> None:
        """A layer that appeared while training; earlier records have no values for it."""
        self._ledger.layers.append((layer, threshold))
        self._put(self._ledger.describe)

    def saw(self, look: Look) -> None:
        """Keep what observers of the network gave."""
        self._put(lambda: self._looks.append(look))

    def snapshot(self, step: int, tensors: Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep weights of this step as `snapshots/step-N.safetensors`."""
        self._put(lambda: save_tensors(self.path / "snapshots" / f"step-{step:012d}.safetensors", _now(tensors)))

    def final(self, state: Mapping[str, Tensor]) -> None:
        """Keep the whole final state as `final.safetensors`."""
        self._put(lambda: save_tensors(self.path / "final.safetensors", state))

    def flush(self) -> None:
        """Wait until all that was added is on disk, or writing has failed."""
        with self._wake:
            self._wanted = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._wanted or not self._thread.is_alive())

    def close(self, *, step: int | None = None, interrupted: bool = False) -> None:
        """Write what is left and stop the thread; what was recorded stays readable whatever happens.

        Args:
            step: the number of updates made; default: the last record's.
            interrupted: the run is marked so, and the last records stay in the journal: when the program ends, the
                threads that write arrays are gone already.
        """
        with self._wake:
            self._closing, self._interrupted = True, interrupted
            self._end = self.last_step if step is None else step
            self._wake.notify_all()
        self._thread.join()
        self._ledger.release()
        if self._sinks is not None:
            self._sinks.close()

    def _put(self, item: Record | Callable[[], None]) -> None:
        with self._wake:
            if self._closing:
                return
            self._queue.append(item)
            if len(self._queue) >= _BATCH:
                self._wake.notify_all()
            if len(self._queue) > _QUEUE:  # the disk cannot keep up: wait rather than fill the memory
                self._wake.wait_for(lambda: len(self._queue) <= _QUEUE or self.failed is not None)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._wanted or self._closing or len(self._queue) >= _BATCH, _FLUSH_SECONDS)
                wanted, closing = self._wanted, self._closing
                items = self._take(everything=wanted or closing)
                self._wake.notify_all()
            try:
                if self.failed is None:
                    self._write(items, everything=wanted or closing)
                    if closing:
                        self._finish()
                else:
                    self._let_go(items)
            except Exception as error:  # training must go on whatever happens here
                self._fail(error)
            if wanted or closing:
                with self._wake:
                    self._wanted = False
                    self._wake.notify_all()
            if closing:
                return

    def _finish(self) -> None:
        if not self._interrupted:
            self._commit()
        self._ledger.end(step=self._end, interrupted=self._interrupted)

    def _take(self, everything: bool) -> list[Record | Callable[[], None]]:
        last = self._queue[-1] if self._queue else None
        young = isinstance(last, Record) and time.monotonic() - last.born < _SETTLE_SECONDS
        keep = [self._queue.pop()] if young and not everything else []
        items = list(self._queue)
        self._queue.clear()
        self._queue.extend(keep)
        return items

    def _fail(self, error: Exception) -> None:
        self.failed = f"{type(error).__name__}: {error}"
        say(
            f"recording to {self.path} has stopped, training goes on and what was recorded before stays readable "
            f"({self.failed})"
        )

    def _let_go(self, items: list[Record | Callable[[], None]]) -> None:
        """After a failure: only wait for the numbers, which other processes and the device's buffers depend on."""
        for item in items:
            if isinstance(item, Record) and item.moved is not None:
                item.moved()

    def _write(self, items: list[Record | Callable[[], None]], everything: bool) -> None:
        for item in items:
            if isinstance(item, Record):
                self._pending.append(self._measured(item))
            else:
                item()
        late = time.monotonic() - self._flushed >= _FLUSH_SECONDS
        waiting = len(self._pending) + len(self._looks)
        if waiting and (everything or late or waiting >= _FLUSH_RECORDS):
            self._flush()

    def _measured(self, record: Record) -> Row:
        row = measured(record, [layer for layer, _ in self._ledger.layers[: record.layers]])
        if not row.gap:
            self._check_finite(row)
        return row

    def _check_finite(self, row: Row) -> None:
        bad = np.flatnonzero(~np.isfinite(row.means[:, 0]))
        if len(bad) and not self._not_finite:
            self._not_finite = True
            names = ", ".join(self._ledger.layers[i][0].name for i in bad[:3]) + (" and others" if len(bad) > 3 else "")
            say(f"NaN or infinite weights in {names} at step {row.record.step}; recording goes on (this is said once)")

    def _flush(self) -> None:
        """Put what is pending into the journal, and from there into the arrays when there is enough."""
        looks, self._looks = self._looks, []
        if looks:
            self._ledger.saw(looks)
        rows, self._pending = self._pending, []
        for _, group in itertools.groupby(rows, lambda row: row.record.filters):  # a block has one width
            block = list(group)
            self._ledger.write(block)
            if self._sinks is not None:
                layers = [layer for layer, _ in self._ledger.layers[: block[0].record.layers]]
                for row in block:
                    self._sinks.add(row, layers)
        self._flushed = time.monotonic()
        if self._ledger.due and not self._interrupted:
            self._commit()

    def _commit(self) -> None:
        """Move the journal into the arrays. It is the journal that must not fail: what this leaves there is as safe,
        and the next time tries again (where the program is about to end, there is none)."""
        try:
            self._ledger.commit()
            self._stuck = False
        except Exception:
            if self._stuck:
                raise
            self._stuck = True


def _now(tensors: Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    return tensors() if callable(tensors) else tensors
