"""The evolution of filters from saved checkpoints: the same measures, and the same kind of run, as `Recorder` gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..core.errors import InputError
from . import store
from .evolution import check_threshold
from .layers import Layer, unwrap
from .passes.meter import Meter
from .passes.watched import Watched
from .run import Run, open_run
from .saved.find import Checkpoint, find_checkpoints, read_checkpoint
from .saved.names import Source, Weights
from .saved.order import in_order, listed
from .writer import RunWriter


def evolve(
    directory: Path | str,
    out: Path | str,
    *,
    threshold: float,
    model: nn.Module | None = None,
    order: str | Path = "step",
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Run:
    """Measure how far each filter moved between consecutive checkpoints of a directory, and write it as a run.

    A record has the step of the later of its two checkpoints. Checkpoints are files of `torch.save` (`.pt`, `.pth`,
    Lightning's `.ckpt`), `.safetensors` files, whole or in shards, and folders as Hugging Face writes them. Nothing is
    unpickled but tensors and plain values. Memory holds the layers' weights twice, and maps the file that is being read
    (the format of torch before 1.6 cannot be mapped and is read whole). See `evolution` for the measures.

    Args:
        directory: where the checkpoints lie; other files there are left alone.
        out: the folder of the run.
        threshold: tau, in units of the weights; the paper takes the initial learning rate.
        model: a network like the one that was trained, which tells the axes of every layer. Without it each
            floating-point tensor of two or more dimensions counts as a layer with filters on dimension 0 and channels
            on dimension 1, and the run's metadata says `"axes": "assumed"`.
        order: "step" (numbers in names, else the step saved inside), "name", "time", or a text file that lists the
            checkpoints one a line. Except for "step", checkpoints without increasing step numbers get 0, 1, 2 ...
        skip_bad: warn of a checkpoint that cannot be used and go on without it; the next record then spans the gap.
        overwrite: replace a run that is in `out`.
        progress: called as `progress(done, total, name)` after each checkpoint.

    Returns:
        The run. It keeps the first layer at some checkpoints (the first, the last, and between them at the 1st, 2nd,
        4th, 8th ... after the first), and the last checkpoint's whole state.

    Raises:
        InputError: a checkpoint that is damaged, needs pickle, or has other weights or shapes than the first; steps
            missing or twice; fewer than two checkpoints; a run already in `out`.
        OSError: the run cannot be written.
    """
    directory, out = Path(directory), Path(out)
    check_threshold(threshold)
    if store.is_run(out) and not overwrite:
        raise InputError(
            f"{out} already holds a run: choose another folder, or overwrite=True (--overwrite) replaces it"
        )
    source = Source(model)
    plan = _plan(directory, str(order), source, skip_bad)
    layers = source.layers(plan[0].shapes)
    gaps = {b.step - a.step for a, b in pairwise(plan)}
    metadata: dict[str, Any] = {
        "model": None if model is None else type(unwrap(model)).__name__,
        "every": gaps.pop() if len(gaps) == 1 else None,
        "checkpoints": [each.checkpoint.name for each in plan],
    }
    if model is None:
        metadata["axes"] = "assumed"
    writer = RunWriter(out, [(layer, threshold) for layer in layers], metadata, overwrite=overwrite)
    try:
        _measure(plan, source, layers, threshold, writer, progress)
        writer.final(source.weights(plan[-1].checkpoint))
    except BaseException:
        writer.close(interrupted=True)
        raise
    writer.close()
    if writer.failed:
        raise OSError(f"{out} could not be written: {writer.failed}")
    return open_run(out)


class _Planned(NamedTuple):
    """A usable checkpoint, its step, and its weights as tensors without memory, which still have shapes and dtypes."""

    step: int
    checkpoint: Checkpoint
    shapes: Weights


def _plan(directory: Path, order: str, source: Source, skip_bad: bool) -> list[_Planned]:
    """Every usable checkpoint, in order.

    All are opened once before anything is written, so that a bad one is not found in the middle of the work.
    """
    found = find_checkpoints(directory)
    if order not in ("step", "name", "time"):
        found = listed(found, Path(order))
    opened = []
    for checkpoint in found:
        with _bad_skipped(skip_bad):
            weights, step = read_checkpoint(checkpoint)
            opened.append((checkpoint, step, {name: tensor.to("meta") for name, tensor in weights.items()}))
    plan: list[_Planned] = []
    for step, checkpoint, raw in in_order(opened, order):
        with _bad_skipped(skip_bad):
            shapes = source.named(checkpoint, raw)
            source.check(checkpoint, shapes, plan[0].shapes if plan else shapes)
            plan.append(_Planned(step, checkpoint, shapes))
    if len(plan) < 2:
        raise InputError(
            f"{directory} holds {len(plan)} checkpoint{'s' * (len(plan) != 1)} that can be used; "
            "measuring what moved takes at least two"
        )
    return plan


@contextmanager
def _bad_skipped(skip_bad: bool) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if not skip_bad:
            raise InputError(f"{error} (skip_bad=True, --skip-bad, goes on without it)") from error
        warnings.warn(f"{error}; going on without it", stacklevel=5)


def _measure(
    plan: list[_Planned],
    source: Source,
    layers: list[Layer],
    threshold: float,
    writer: RunWriter,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Put one checkpoint after the other into the same tensors, and measure what each one moved."""
    shapes = plan[0].shapes
    kept = [name for name in (layers[0].parameter, layers[0].bias) if name in shapes]
    names = {layer.parameter for layer in layers} | set(kept)
    current = {name: torch.empty(shapes[name].shape, dtype=shapes[name].dtype) for name in names}
    _load(source, plan[0].checkpoint, current)
    meter = Meter(Watched(layer, current[layer.parameter], threshold) for layer in layers)
    for index, (step, checkpoint, _) in enumerate(plan):
        if writer.failed:
            return
        if index:
            _load(source, checkpoint, current)
            writer.add(step, meter.measure()())
        if index & (index - 1) == 0 or index == len(plan) - 1:
            writer.snapshot(step, {name: current[name] for name in kept})
            writer.flush()  # before the next checkpoint takes the place of this one
        if progress is not None:
            progress(index + 1, len(plan), checkpoint.name)


def _load(source: Source, checkpoint: Checkpoint, current: Weights) -> None:
    weights = source.weights(checkpoint)
    source.check(checkpoint, weights, current)  # again: the file may have changed meanwhile
    for name, tensor in current.items():
        tensor.copy_(weights[name])
