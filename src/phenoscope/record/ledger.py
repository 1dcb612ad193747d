"""The files of a run being written: the journal, the arrays that it goes into, and the marker between them."""

from __future__ import annotations

import contextlib
import itertools
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..core.errors import InputError
from . import store
from .counts import dtype_for
from .layers import Layer
from .lock import Lock
from .rows import Row, as_block
from .seen import Look, cut_looks, keep_looks
from .thinning import Thinning


class Ledger:
    """A run on disk, open for records; `store` says what lies where. Arguments are as those of `RunWriter`.

    Attributes:
        layers: each layer with its threshold.
        last_step: the last record's, or the step given to a resume.
        resumed: whether a run that was there is gone on with.
        shapes: what the observers of a run that is gone on with gave.
    """

    def __init__(
        self,
        path: Path,
        layers: list[tuple[Layer, float]],
        metadata: Mapping[str, Any],
        *,
        max_bytes: float,
        overwrite: bool,
        resume: bool,
        step: int | None,
    ) -> None:
        self.path, self.layers = path, list(layers)
        self.last_step, self.resumed = 0, False
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._gathered: list[store.Block] = []  # in the journal, not yet in the arrays
        self._names: list[str] = []  # of scalars
        self._records = self._rows = 0  # in the arrays
        self._metadata = {**metadata, **_made_with()}
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path)
        try:
            self._begin(max_bytes, overwrite=overwrite, resume=resume, step=step)
        except BaseException:
            self._lock.release()
            raise

    @property
    def filters(self) -> int:
        return sum(len(layer) for layer, _ in self.layers)

    @property
    def due(self) -> bool:
        """Whether enough records have gathered in the journal for the arrays."""
        return sum(len(block["step"]) for block in self._gathered) >= store.CHUNK

    def write(self, rows: list[Row]) -> None:
        """Put rows of one width into the journal."""
        filters = rows[0].record.filters
        kept = [self._thinning.keep(filters * (4 + self._counts.itemsize)) for _ in rows]
        block = as_block(rows, kept, self._names, self._counts)
        store.append_block(store.journal(self.path, self._records), block)
        self._gathered.append(block)

    def saw(self, looks: list[Look]) -> None:
        """Keep what the observers saw."""
        keep_looks(self.path, looks)

    def commit(self) -> None:
        """Move what gathered from the journal into the arrays, then the marker, then the journal goes.

        Until the marker has moved the journal holds all of it: after an error this may be tried again.
        """
        if not self._gathered:
            return
        records, rows = self._records, self._rows
        for block in self._gathered:
            self._arrays.append(block, records, rows)
            records, rows = records + len(block["step"]), rows + int(block["kept"].sum())
        self._mark(records, rows)
        self._gathered = []

    def describe(self) -> None:
        """Write `run.json`."""
        layers = [{**layer.to_json(), "threshold": threshold} for layer, threshold in self.layers]
        store.write_json(self.path / "run.json", {"format": store.FORMAT, **self._metadata, "layers": layers})

    def end(self, *, step: int, interrupted: bool) -> None:
        """Say that the run has ended, and how."""
        self._metadata["ended"] = {"step": step, "interrupted": interrupted}
        self.describe()

    def release(self) -> None:
        """Let another recorder have the folder."""
        self._lock.release()

    def _begin(self, max_bytes: float, *, overwrite: bool, resume: bool, step: int | None) -> None:
        there = store.is_run(self.path)
        if there and not (overwrite or resume):
            raise InputError(
                f"{self.path} already holds a run: pass resume=True to go on with it, overwrite=True to replace it, "
                "or choose another folder"
            )
        if there and resume:
            self._resume(max_bytes, step)
        else:
            if there:
                store.remove_run(self.path)
            self._counts = max((dtype_for(*layer.entries) for layer, _ in self.layers), default=np.dtype(np.uint32))
            self._arrays = store.Arrays.create(self.path, len(self.layers), self.filters, self._counts)
            self._thinning = Thinning(max_bytes)
            self._mark(0, 0)
        self.describe()

    def _mark(self, records: int, rows: int, blocks: Sequence[store.Block] = ()) -> None:
        """Begin the journal of the records that the arrays now hold, and say so; journals of other markers go."""
        journal = store.journal(self.path, records)
        store.write_blocks(journal, blocks)
        state = {"records": records, "rows": rows, "scalars": self._names, "stride": self._thinning.stride}
        store.write_json(self.path / "state.json", state)
        self._records, self._rows = records, rows
        for other in self.path.glob("journal-*.bin"):
            if other != journal:
                with contextlib.suppress(OSError):
                    other.unlink()

    def _resume(self, max_bytes: float, step: int | None) -> None:
        """Take up the run that is there: check its layers, load its journal, drop what lies after `step`."""
        facts, state = store.read_json(self.path / "run.json"), store.read_json(self.path / "state.json")
        self._check_layers(facts.get("layers", []))
        self._metadata = {key: facts[key] for key in facts if key not in ("layers", "format", "ended")}
        self._arrays = store.Arrays(self.path, mode="r+")
        self._counts = self._arrays["counts"].dtype
        records, rows = int(state["records"]), int(state["rows"])
        self._names = list(state["scalars"])
        blocks = list(store.read_blocks(store.journal(self.path, records)))
        steps = np.concatenate([self._arrays["step"][:records], *(block["step"] for block in blocks)])
        good = len(steps) if step is None else int(np.searchsorted(steps, step, side="right"))
        records = min(records, good)
        rows = int(np.searchsorted(self._arrays["rows"][:rows], records))
        self._gathered = store.first_records(blocks, good - records)
        if blocks:
            self._names = [str(name) for name in blocks[-1]["names"]]
        kept = rows + sum(int(block["kept"].sum()) for block in self._gathered)
        self._thinning = Thinning(max_bytes, records=good, kept=kept, stride=int(state["stride"]))
        last = int(steps[-1]) if len(steps) else 0
        self.last_step, self.resumed = last if step is None else step, True
        self._metadata["resumed"] = [*self._metadata.get("resumed", []), self.last_step]
        self._mark(records, rows, self._gathered)
        end = (facts.get("ended") or {}).get("step", last)
        store.remove_weights(self.path, self.last_step, final=end > self.last_step)
        self.shapes = cut_looks(self.path, self.last_step)

    def _check_layers(self, described: list[dict[str, Any]]) -> None:
        there = [(str(layer.get("name")), tuple(layer.get("shape", ())), layer.get("threshold")) for layer in described]
        here = [(layer.name, layer.shape, threshold) for layer, threshold in self.layers]
        if there != here:
            odd = next((a for a, b in itertools.zip_longest(there, here) if a != b), None) or here[len(there)]
            raise InputError(
                f"{self.path} was recorded from another model or with another threshold (layer {odd[0]!r}): "
                "choose another folder, or overwrite=True"
            )


def _made_with() -> dict[str, Any]:
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"phenoscope": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
