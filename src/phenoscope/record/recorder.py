"""The recorder: attach it to a training loop, and every layer's evolution is on disk."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.errors import InputError, say
from ..train.watch import Watch
from .choose import Layers
from .followed import Followed
from .keep import next_snapshot, state_of, weights_of
from .layers import unwrap
from .live import Live
from .passes.host import to_host
from .passes.watched import Moved
from .rows import Record
from .seen import Look
from .sharded import Summing, process_group
from .sinks import Sink, Sinks, checked
from .thresholds import Threshold
from .watching import Watching
from .writer import RunWriter


class _Target(Protocol):
    """Where records go: the disk, or (on the other processes of a sharded model) just the common sum."""

    def add(self, step: int, moved: Callable[[], Moved] | None, scalars: dict[str, Any]) -> Record | None: ...
    def close(self, *, step: int | None = None, interrupted: bool = False) -> None: ...


class Recorder:
    """Records how far every filter of a network moves while it trains.

    With an optimizer nothing else changes in the loop: its step hook counts the updates and records every `every`-th.

        with Recorder(model, "runs/vgg", optimizer=optimizer, every=10) as recorder:
            for x, y in loader:
                loss = loss_fn(model(x), y)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                recorder.log(loss=loss)

    Without one, call `recorder.step(loss=loss)` after every update and give `threshold=`. The measures are those of
    `evolution`, between consecutive records; read them with `open_run(path)`. Whatever goes wrong while training runs
    (a full disk, NaN weights) is reported once as a warning, and training goes on; numbers are bitwise those of a
    training that is not recorded. Under DistributedDataParallel rank 0 records; under FSDP2 every rank must make the
    recorder, and rank 0 writes. The extra memory is one copy of the recorded weights.

    On tau, the movement above which an entry counts as changed: the default is each parameter's initial learning rate,
    as in the paper. That means something only for Adam-like optimizers, whose step is about the rate, and over several
    updates: one Adam update hardly ever exceeds it, so that at `every=1` almost all filters look idle, and updates of
    SGD are far smaller still. Give `threshold=` for those.

    Args:
        model: the network; torch.compile, DataParallel and DistributedDataParallel are looked through.
        path: the folder of the run.
        optimizer: whose updates are counted.
        every: updates between records, in whose windows the measures are taken.
        threshold: tau, in units of the weights: a number, or {layer pattern: number}, the default filling the rest.
        heads: {pattern: heads} for attention projections whose number of heads the modules do not say.
        embeddings: whether to record the rows of embeddings.
        layers: which layers to record: a pattern of names ("encoder.*"), a module type (nn.Conv2d), a predicate
            (name, module) -> bool, or a list of these; by default all, or 1,000 of them spread over the depth.
        snapshots: "first": keep the first layer's weights on a log-spaced schedule; "all": those of every layer.
        final: whether to keep the whole state at the end, which `ablate` needs.
        max_bytes: bound on the values by filter on disk; beyond it they are kept ever more rarely, the layer means
            still at every record.
        resume: go on with the run in `path`, if there is one; the first record is marked as a gap.
        overwrite: replace the run in `path`, if there is one.
        step: the number of updates made before; by default 0, or with `resume` the run's last record. Records after it
            are dropped: they belong to updates that are made again.
        sinks: who else gets every record: callables `(step, values)`, as those of `phenoscope.integrations`. `values`
            are the layer means `distance/<layer>`, `distance_per_weight/<layer>`, `changed/<layer>`, `idle/<layer>`
            and the logged scalars. They are called beside the training, a moment later, each in a thread of its own;
            one that fails is left out, and one that cannot keep up misses records. They belong to this recorder, which
            closes them.
        histograms_every: updates between values by filter, for sinks that have a method `histograms(step, arrays)`;
            0 for none; default 100 records.
        watch: functions of the network to call while it trains, as for `train.fit`; `open_run(path).watched` has what
            they saw. Steps are updates as this recorder counts them. Training does not notice but for the time; an
            observer that fails is left out. Under FSDP2 every rank calls the observers.
        live: whether to show on standard error which layers move most and which have stopped.

    Raises:
        InputError: a run is there already, or another recorder is writing there; no layer has filters, no threshold
            can be derived.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | Path,
        *,
        optimizer: Optimizer | None = None,
        every: int = 10,
        threshold: Threshold = None,
        heads: Mapping[str, int] | None = None,
        embeddings: bool = False,
        layers: Layers = None,
        snapshots: Literal["first", "all"] = "first",
        final: bool = True,
        max_bytes: float = 2e9,
        resume: bool = False,
        overwrite: bool = False,
        step: int | None = None,
        sinks: Sequence[Sink] = (),
        histograms_every: int | None = None,
        watch: Watch | None = None,
        live: bool = False,
    ) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1, not {every}")
        if histograms_every is not None and histograms_every < 0:
            raise InputError(f"histograms_every must be 0 (none) or more, not {histograms_every}")
        if snapshots not in ("first", "all"):
            raise InputError(f"snapshots must be 'first' or 'all', not {snapshots!r}")
        others = checked(sinks)
        self.path = Path(path)
        self._model, self._optimizer = unwrap(model), _innermost(optimizer)
        self._every, self._snapshots, self._keep_final = every, snapshots, final
        self._followed = Followed(
            self._model, self._optimizer, threshold=threshold, heads=heads, embeddings=embeddings, layers=layers
        )
        self._watching = None if watch is None else Watching(watch, self._model, self._saw)
        self._rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        self._scalars: dict[str, Any] = {}
        self._latest: Record | None = None
        self._hooks: list[Any] = []
        self._target: _Target | None = None
        self._gap = False
        self._step = step or 0
        if self._rank == 0 or self._followed.sharded:
            self._open(max_bytes=max_bytes, resume=resume, overwrite=overwrite, step=step)
        self._next_snapshot = self._step if not self._gap else next_snapshot(self._step, every)
        self._guarded(self._keep_snapshot)
        self._guarded(self._look)
        if isinstance(self._target, RunWriter) and (others or live):
            shown = [Live(str(path))] if live else []
            self._target.follow(Sinks([*others, *shown], every=every, histograms_every=histograms_every))
        if self._optimizer is not None and self._target is not None:
            self._hooks.append(self._optimizer.register_step_pre_hook(lambda *_: self._guarded(self._discover)))
            self._hooks.append(self._optimizer.register_step_post_hook(lambda *_: self._guarded(self._count)))
        atexit.register(self.abandon)

    # ---- what the user calls

    def step(self, **scalars: Any) -> None:
        """Count one update, made without an optimizer that the recorder knows, with scalars to keep beside it."""
        if self._optimizer is not None:
            raise InputError("this recorder counts its optimizer's updates by itself: use log(...) for scalars")
        self._scalars.update(_kept(scalars))
        self._guarded(self._count)
        self._guarded(self._discover)

    def log(self, **scalars: Any) -> None:
        """Keep numbers (loss, accuracy ...) beside the record of this update; between records the last value counts.

        Tensors of one element are read later, without waiting for the device.
        """
        values = _kept(scalars)
        if self._latest is not None and self._latest.step == self._step:
            self._latest.scalars.update(values)
        else:
            self._scalars.update(values)

    def close(self) -> None:
        """Keep the last snapshot and the final state, write what is left, and let go of the optimizer."""
        self._close(interrupted=False)

    def abandon(self) -> None:
        """End the run where it is, marked as interrupted, after an error or when the program ends.

        All records are kept. The weights are not: those in the model may no longer be of the last update.
        """
        self._let_go()
        target, self._target = self._target, None
        if target is not None:
            target.close(step=self._step, interrupted=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._followed.sharded:
            self.abandon()  # gathering the state needs all processes, and this one has failed
        else:
            self._close(interrupted=kind is not None)

    # ---- inside

    def _open(self, *, max_bytes: float, resume: bool, overwrite: bool, step: int | None) -> None:
        self._followed.settle(self.path if resume else None)
        refused: InputError | None = None
        shapes: dict[str, tuple[int, ...]] = {}
        try:
            if self._rank == 0:
                writer = RunWriter(
                    self.path,
                    [(each.layer, self._followed.taus[each.layer.name]) for each in self._followed.found],
                    self._facts(),
                    max_bytes=max_bytes,
                    resume=resume,
                    overwrite=overwrite,
                    step=step,
                )
                self._target = writer
                self._gap, shapes = writer.resumed, writer.shapes
                if writer.resumed:  # a resume into a folder without a run begins one, at the step that was given
                    self._step = writer.last_step
        except InputError as error:
            refused = error
        except OSError as error:
            say(f"nothing is recorded: {self.path} cannot be written ({error}); training goes on")
            if not self._followed.sharded:
                return
        if self._followed.sharded:  # all processes go on alike, or none
            start: list[Any] = [self._step, self._gap, shapes, refused]
            dist.broadcast_object_list(start, 0, group=process_group())
            self._step, self._gap, shapes, refused = start
            self._target = self._target or Summing()
        if refused is not None:
            raise refused
        if self._watching is not None and self._gap:
            self._watching.go_on(self._step, shapes)
        try:
            self._followed.build()
        except BaseException:
            self.abandon()  # the folder is free again
            raise

    def _close(self, *, interrupted: bool) -> None:
        self._let_go()
        if self._target is not None:
            self._next_snapshot = min(self._next_snapshot, self._step)
            if not interrupted:
                self._guarded(lambda: self._look(last=True))
            self._guarded(self._keep_snapshot)
            self._guarded(self._keep_final_state)
            target, self._target = self._target, None
            if target is not None:
                target.close(step=self._step, interrupted=interrupted)

    def _let_go(self) -> None:
        atexit.unregister(self.abandon)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _guarded(self, action: Callable[[], None]) -> None:
        """Nothing that happens in here may stop the training."""
        if self._target is None:
            return
        try:
            action()
        except Exception as error:
            say(f"recording has stopped at update {self._step}, training goes on ({type(error).__name__}: {error})")
            target, self._target = self._target, None
            target.close(step=self._step, interrupted=True)

    def _discover(self) -> None:
        """Take up new layers where a window begins."""
        new = [] if self._step % self._every else self._followed.discover()
        for each in new:
            if isinstance(self._target, RunWriter):
                self._target.add_layer(each.layer, self._followed.taus[each.layer.name])
        if new:
            self._keep_snapshot()

    def _count(self) -> None:
        self._step += 1
        if self._step % self._every == 0:
            self._record()
        self._keep_snapshot()
        self._look()

    def _record(self) -> None:
        assert self._target is not None
        moved = self._followed.measure()
        if self._gap:
            moved, self._gap = None, False
        scalars, self._scalars = {**self._followed.rates(), **self._scalars}, {}
        self._latest = self._target.add(self._step, moved, scalars)

    def _look(self, *, last: bool = False) -> None:
        if self._watching is not None:
            self._watching.look(self._step, last=last)

    def _saw(self, look: Look) -> None:
        if isinstance(self._target, RunWriter):
            self._target.saw(look)

    def _keep_snapshot(self) -> None:
        if self._step < self._next_snapshot or not self._followed.found:
            return
        self._next_snapshot = next_snapshot(self._step, self._every)
        found = self._followed.found
        kept = weights_of(self._model, found if self._snapshots == "all" else found[:1])
        if isinstance(self._target, RunWriter):
            self._target.snapshot(self._step, to_host(kept))

    def _keep_final_state(self) -> None:
        if not self._keep_final:
            return
        state = state_of(self._model)
        if isinstance(self._target, RunWriter):
            self._target.final(state)

    def _facts(self) -> dict[str, Any]:
        return {
            "every": self._every,
            "model": type(self._model).__name__,
            "parameters": sum(p.numel() for p in self._model.parameters() if not nn.parameter.is_lazy(p)),
            "optimizer": type(self._optimizer).__name__ if self._optimizer else None,
        }


def _innermost(optimizer: Any) -> Optimizer | None:
    """The optimizer that a wrapper (accelerate's, say) steps."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _kept(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in scalars.items()}
