"""A recorded run as labelled arrays, also while it is still being written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from ..core.errors import InputError
from . import store
from .counts import unpack
from .layers import Layer
from .rows import measures
from .seen import read_looks
from .tensors import load_tensors

MEASURES = ("distance", "distance_per_weight", "changed", "idle")


def open_run(path: Path | str) -> Run:
    """Open what a `Recorder` or `evolve` wrote.

    Raises:
        InputError: there is no run, or its files are damaged; the message says which.
    """
    return Run(Path(path))


class Run(Mapping[str, xr.Dataset]):
    """A recorded run: layer name -> dataset of its filters. It shows the state at the time it was opened.

    `run["features.0"]` has `distance`, `distance_per_weight`, `changed` and `idle` (see `evolution`) with dimensions
    (step, filter), and on `step`: `gap`, whether the values are missing because recording was interrupted, and
    `weight`, how many records the row stands for where rows were thinned.

    Attributes:
        path: the folder.
        metadata: facts: `every`, `model`, versions; `ended`, once it has, with the `step` and whether it was
            `interrupted`, by an error or the end of the program ...
        layers: layer name -> how its filters lie in the weight, in network order.
        thresholds: layer name -> tau.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not store.is_run(path):
            raise InputError(f"{path} holds no run (no run.json there)")
        facts = store.read_json(path / "run.json")
        if facts.get("format") != store.FORMAT:
            raise InputError(f"{path} has format {facts.get('format')!r}; this version reads {store.FORMAT}")
        try:
            described = [(Layer.from_json(fields), float(fields["threshold"])) for fields in facts.pop("layers")]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path / 'run.json'} is damaged: {error!r}") from error
        self.metadata: dict[str, Any] = facts
        self.layers = {layer.name: layer for layer, _ in described}
        self.thresholds = {layer.name: threshold for layer, threshold in described}
        self._starts = dict(zip(self.layers, np.cumsum([0, *map(len, self.layers.values())]), strict=False))
        self._load()

    def _load(self) -> None:
        """Read the marker, then what it vouches for; again if the writer moved it meanwhile."""
        for _ in range(10):
            state = store.read_json(self.path / "state.json")
            self._records, self._rows = int(state["records"]), int(state["rows"])
            self._blocks = list(store.read_blocks(store.journal(self.path, self._records)))
            if store.read_json(self.path / "state.json") == state:
                break
        self._arrays = store.Arrays(self.path)
        self._names = [str(n) for n in (self._blocks[-1]["names"] if self._blocks else state["scalars"])]

    def _along(self, name: str, count: int, columns: slice = slice(None)) -> np.ndarray:
        """One array with what the journal adds; narrower blocks are filled up."""
        array = self._arrays[name]
        parts = [array[:count] if array.ndim == 1 else array[:count, columns]]
        parts += [block[name] if array.ndim == 1 else block[name][:, columns] for block in self._blocks]
        if array.ndim == 1:
            return np.concatenate(parts)
        width = max(part.shape[1] for part in parts)
        fill = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        pads = [[(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)] for part in parts]
        return np.concatenate([np.pad(p, pad, constant_values=fill) for p, pad in zip(parts, pads, strict=True)])

    @cached_property
    def steps(self) -> np.ndarray:
        """The step of every record: the number of updates made when it was taken."""
        return self._along("step", self._records)

    @cached_property
    def _gap(self) -> np.ndarray:
        return self._along("gap", self._records)

    @cached_property
    def _kept(self) -> np.ndarray:
        """For every row by filter, its place among the records."""
        kept = [np.flatnonzero(block["kept"]) for block in self._blocks]
        starts = np.cumsum([self._records, *(len(block["step"]) for block in self._blocks)])
        return np.concatenate(
            [self._arrays["rows"][: self._rows], *(k + s for k, s in zip(kept, starts, strict=False))]
        )

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self.layers:
            raise KeyError(f"{name!r} is no recorded layer; there are {', '.join(list(self.layers)[:8])} ...")
        layer, start = self.layers[name], self._starts[name]
        columns = slice(start, start + len(layer))
        distance = self._along("distance", self._rows, columns).astype(np.float64)
        code = self._along("counts", self._rows, columns)
        channels, entries = layer.entries
        changed, moved = unpack(code, entries)
        rows = self._kept
        values = measures(distance, changed, moved, channels, entries)
        return xr.Dataset(
            {key: (("step", "filter"), value) for key, value in values.items()}
            | {"gap": ("step", self._gap[rows]), "weight": ("step", np.diff(rows, prepend=-1))},
            coords={"step": self.steps[rows], "filter": np.arange(len(layer))},
            attrs={
                "kind": layer.kind,
                "shape": layer.shape,
                "threshold": self.thresholds[name],
                "every": self.metadata.get("every"),
            },
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @cached_property
    def means(self) -> xr.Dataset:
        """The layer means D_t, S_t and Z_t (equations 1 to 3) at every record, and D_t per weight: (step, layer)."""
        distance, changed, moved = np.moveaxis(self._along("layers", self._records), -1, 0)
        channels, entries = np.array([layer.entries for layer in self.layers.values()]).reshape(-1, 2).T
        values = measures(distance, changed, moved, channels, entries)
        return xr.Dataset(
            {key: (("step", "layer"), value) for key, value in values.items()} | {"gap": ("step", self._gap)},
            coords={"step": self.steps, "layer": list(self.layers)},
        )

    @cached_property
    def scalars(self) -> xr.Dataset:
        """What was logged with the records: `lr`, and whatever the user passed; NaN where nothing was."""
        values = self._along("scalars", self._records)
        return xr.Dataset(
            {name: ("step", values[:, i]) for i, name in enumerate(self._names)}, coords={"step": self.steps}
        )

    @cached_property
    def watched(self) -> xr.Dataset:
        """What the observers of the recorder's `watch` saw, over `step`; further axes of an observer `f` are called
        `f_0`, `f_1` ... Empty without a watch; NaN where an observer was not asked."""
        return read_looks(self.path)

    def average(self, name: str) -> xr.Dataset:
        """Time-means of the four measures of every filter, gaps and missing values left out: dimension (filter,)."""
        layer = self[name]
        with np.errstate(invalid="ignore"):
            return layer[list(MEASURES)].weighted(layer["weight"]).mean("step")

    @cached_property
    def mean_distance(self) -> dict[str, np.ndarray]:
        """The time-mean of every filter's distance, by layer: that of `average`, in one pass over the whole run."""
        total, weight = np.zeros((2, sum(map(len, self.layers.values()))))
        stored = self._arrays["distance"]
        chunks = (stored[i : min(i + store.CHUNK, self._rows)] for i in range(0, self._rows, store.CHUNK))
        at, weights = 0, np.diff(self._kept, prepend=-1)
        for values in itertools.chain(chunks, (block["distance"] for block in self._blocks)):
            there = ~np.isnan(values)
            own = weights[at : at + len(values)].astype(np.float64)
            total[: values.shape[1]] += own @ np.where(there, values, 0)
            weight[: values.shape[1]] += own @ there
            at += len(values)
        with np.errstate(invalid="ignore"):
            means = np.split(total / weight, list(self._starts.values())[1:])
        return dict(zip(self.layers, means, strict=True))

    @property
    def snapshots(self) -> list[int]:
        """The steps at which weights were kept."""
        return list(store.snapshots(self.path))

    def snapshot(self, step: int) -> dict[str, Tensor]:
        """The weights kept at a step, by parameter name."""
        files = store.snapshots(self.path)
        if step not in files:
            raise InputError(f"{self.path} kept no weights at step {step}; there are {list(files)}")
        return load_tensors(files[step])

    def final(self) -> dict[str, Tensor]:
        """The whole state at the end of the recording, as `load_state_dict` takes it."""
        file = self.path / "final.safetensors"
        if not file.is_file():
            raise InputError(f"{self.path} kept no final state (it was recorded with final=False, or did not end)")
        return load_tensors(file)

    def _repr_html_(self) -> str:
        """What a notebook shows: a small figure and a table."""
        from .figures.notebook import run_html

        return run_html(self)

    def __repr__(self) -> str:
        filters = sum(map(len, self.layers.values()))
        last = f", steps {self.steps[0]} to {self.steps[-1]}" if len(self.steps) else ""
        return f"<Run {self.path}: {len(self)} layers, {filters} filters, {len(self.steps)} records{last}>"
