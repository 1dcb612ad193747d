"""Writes a run beside the training: a background thread, a journal, and arrays that only grow."""

from __future__ import annotations

import itertools
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..core.errors import InputError, say
from . import store
from .counts import dtype_for
from .layers import Layer
from .passes.watched import Moved
from .rows import Record, Row, as_block, measured
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
        self._layers = list(layers)
        self._max_bytes = max_bytes
        self._queue: deque[Record | Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._wanted = self._closing = False
        self._pending: list[Row] = []  # measured, not yet on disk
        self._gathered: list[store.Block] = []  # in the journal, not yet in the arrays
        self._names: list[str] = []  # of scalars
        self._records = self._rows = 0  # in the arrays
        self._next, self._kept, self._stride = 0, 0, 1
        self._flushed = time.monotonic()
        self._not_finite = False
        self._sinks: Sinks | None = None
        self.last_step = 0
        self.resumed = False
        if store.is_run(self.path) and not (overwrite or resume):
            raise InputError(
                f"{self.path} already holds a run: pass resume=True to go on with it, overwrite=True to replace it, "
                "or choose another folder"
            )
        self._metadata = {**dict(metadata), **_made_with()}
        self.path.mkdir(parents=True, exist_ok=True)
        if resume and store.is_run(self.path):
            self._resume(step)
        else:
            if store.is_run(self.path):
                store.remove_run(self.path)
            self._counts = max((dtype_for(*layer.entries) for layer, _ in layers), default=np.dtype(np.uint32))
            self._arrays = store.Arrays.create(self.path, len(layers), self._filters(), self._counts)
            self._mark()
        self._describe()
        self._thread = threading.Thread(target=self._work, name="phenoscope-writer", daemon=True)
        self._thread.start()

    def add(
        self, step: int, moved: Moved | Callable[[], Moved] | None, scalars: dict[str, Any] | None = None
    ) -> Record:
        """Queue a record; `None` instead of numbers marks a gap. Scalars may be added to the record for a moment."""
        numbers = moved if moved is None or callable(moved) else (lambda: moved)
        record = Record(step, numbers, scalars or {}, self._filters(), len(self._layers))
        self._put(record)
        self.last_step = step
        return record

    def follow(self, sinks: Sinks) -> None:
        """Hand every record from here on to these sinks, too; they are closed with the run."""
        self._sinks = sinks

    def add_layer(self, layer: Layer, threshold: float) -> None:
        """A layer that appeared while training; earlier records have no values for it."""
        self._layers.append((layer, threshold))
        self._put(self._describe)

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

    def close(self) -> None:
        """Write what is left and stop the thread; what was recorded stays readable whatever happens."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
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
                        self._commit()
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
        if self._pending and (everything or late or len(self._pending) >= _FLUSH_RECORDS):
            self._flush()

    def _measured(self, record: Record) -> Row:
        row = measured(record, [layer for layer, _ in self._layers[: record.layers]])
        if not row.gap:
            self._check_finite(row)
        return row

    def _check_finite(self, row: Row) -> None:
        bad = np.flatnonzero(~np.isfinite(row.means[:, 0]))
        if len(bad) and not self._not_finite:
            self._not_finite = True
            names = ", ".join(self._layers[i][0].name for i in bad[:3]) + (" and others" if len(bad) > 3 else "")
            say(f"NaN or infinite weights in {names} at step {row.record.step}; recording goes on (this is said once)")

    def _flush(self) -> None:
        """Put the pending rows into the journal, and from there into the arrays when there are enough."""
        rows, self._pending = self._pending, []
        while rows:  # a block has one width
            width = rows[0].record.filters
            count = next((i for i, row in enumerate(rows) if row.record.filters != width), len(rows))
            kept = [self._keep(width) for _ in rows[:count]]
            block = as_block(rows[:count], kept, self._names, self._counts)
            store.append_block(store.journal(self.path, self._records), block)
            self._gathered.append(block)
            if self._sinks is not None:
                layers = [layer for layer, _ in self._layers[: rows[0].record.layers]]
                for row in rows[:count]:
                    self._sinks.add(row, layers)
            rows = rows[count:]
        self._flushed = time.monotonic()
        if sum(len(block["step"]) for block in self._gathered) >= store.CHUNK:
            self._commit()

    def _keep(self, filters: int) -> bool:
        """Whether a record's values by filter are kept: half as many from each time on when half of what was left of
        `max_bytes` is used."""
        size = filters * (4 + self._counts.itemsize)
        keep = self._next % self._stride == 0 and (self._kept + 1) * size <= self._max_bytes
        self._next += 1
        self._kept += keep
        if keep and self._max_bytes - self._kept * size < self._max_bytes / (2 * self._stride):
            self._stride *= 2
            if self._stride == 2:
                say(
                    f"half of max_bytes={self._max_bytes:.3g} is used: values by filter are kept ever more rarely "
                    "from here on; layer means still at every record"
                )
        return keep

    def _commit(self) -> None:
        """Move the gathered blocks from the journal into the arrays, then the marker, then the journal goes."""
        if not self._gathered:
            return
        records, rows = self._records, self._rows
        for block in self._gathered:
            self._arrays.append(block, records, rows)
            records, rows = records + len(block["step"]), rows + int(block["kept"].sum())
        self._records, self._rows, self._gathered = records, rows, []
        self._mark()

    def _mark(self, blocks: Sequence[store.Block] = ()) -> None:
        """Begin the journal of the records that the arrays now hold, and say so; journals of other markers go."""
        journal = store.journal(self.path, self._records)
        store.write_blocks(journal, blocks)
        state = {"records": self._records, "rows": self._rows, "scalars": self._names, "stride": self._stride}
        store.write_json(self.path / "state.json", state)
        for other in self.path.glob("journal-*.bin"):
            if other != journal:
                other.unlink()

    def _describe(self) -> None:
        layers = [{**layer.to_json(), "threshold": threshold} for layer, threshold in self._layers]
        store.write_json(self.path / "run.json", {"format": store.FORMAT, **self._metadata, "layers": layers})

    def _filters(self) -> int:
        return sum(len(layer) for layer, _ in self._layers)

    def _resume(self, step: int | None) -> None:
        """Take up the run that is there: check its layers, drop records after `step`, load what its journal holds."""
        facts, state = store.read_json(self.path / "run.json"), store.read_json(self.path / "state.json")
        there = [
            (str(layer.get("name")), tuple(layer.get("shape", ())), layer.get("threshold"))
            for layer in facts.get("layers", [])
        ]
        here = [(layer.name, layer.shape, threshold) for layer, threshold in self._layers]
        if there != here:
            odd = next((a for a, b in itertools.zip_longest(there, here) if a != b), None) or here[len(there)]
            raise InputError(
                f"{self.path} was recorded from another model or with another threshold (layer {odd[0]!r}): "
                "choose another folder, or overwrite=True"
            )
        self._metadata = {key: facts[key] for key in facts if key not in ("layers", "format")}
        self._arrays = store.Arrays(self.path, mode="r+")
        self._counts = self._arrays["counts"].dtype
        records, rows = int(state["records"]), int(state["rows"])
        self._names, self._stride = list(state["scalars"]), int(state["stride"])
        blocks = list(store.read_blocks(store.journal(self.path, records)))
        steps = np.concatenate([self._arrays["step"][:records], *(block["step"] for block in blocks)])
        good = len(steps) if step is None else int(np.searchsorted(steps, step, side="right"))
        self._records = min(records, good)
        self._rows = int(np.searchsorted(self._arrays["rows"][:rows], self._records))
        self._gathered = store.first_records(blocks, good - self._records)
        if blocks:
            self._names = [str(name) for name in blocks[-1]["names"]]
        self._next = good
        self._kept = self._rows + sum(int(block["kept"].sum()) for block in self._gathered)
        self.last_step = step if step is not None else int(steps[-1]) if len(steps) else 0
        self.resumed = True
        self._metadata["resumed"] = [*self._metadata.get("resumed", []), self.last_step]
        self._mark(self._gathered)


def _made_with() -> dict[str, Any]:
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"phenoscope": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _now(tensors: Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    return tensors() if callable(tensors) else tensors
