"""The recorder as a callback of `lightning.pytorch`."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.errors import InputError
from ..core.extras import need
from ..record.choose import MOST
from ..record.layers import clean_name, find_layers
from .attached import Attached, check_settings

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = need("lightning.pytorch", "lightning").Callback


class Record(Callback):
    """Records how far every filter moves while a `lightning.pytorch.Trainer` trains.

        from phenoscope.integrations.lightning import Record

        trainer = Trainer(max_epochs=10, callbacks=[Record("runs/vgg", every=10, threshold=1e-3)])
        trainer.fit(module, loader)

    Records count updates of the optimizer, not batches. What the module logs with `self.log`, and the loss of the
    update's last batch, is kept beside them. The count goes into the trainer's checkpoints: `fit(ckpt_path=...)` goes
    on with the run that is there from the checkpoint's update on, the first record marked as a gap; later records,
    whose updates are made again, are dropped. `fast_dev_run` records nothing. With Fabric use
    `phenoscope.Recorder(model.module, path, optimizer=optimizer)`, as in any loop.

    With several optimizers each module is a run of its own, in a folder named after it and counted by its optimizer:
    `runs/gan/generator` and `runs/gan/discriminator`. Modules are the children of the LightningModule (or of its only
    child). Where one of them has weights in several optimizers, the whole network is one run, counted by the first.

    Args:
        path: the folder of the run, or with several optimizers of the runs.
        modules: with several optimizers, settings of single modules beside those of all:
            `{"generator": {"layers": nn.ConvTranspose2d, "sinks": [TensorBoard("logs", prefix="generator/")]}}`.
        settings: the Recorder's other arguments (`every`, `threshold`, `layers`, `sinks`, `overwrite` ...).
            `overwrite` replaces a run only when training begins from the start.

    Raises:
        ImportError: Lightning is not installed.
        InputError: a setting that the trainer decides (`optimizer`, `resume`, `step`); when training begins: settings
            of a module that is none; `sinks` or `live` that several runs would share; what the Recorder refuses, such
            as a folder that holds a run already.
    """

    def __init__(
        self, path: str | Path, *, modules: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any
    ) -> None:
        for each in (settings, *(modules or {}).values()):
            check_settings(each)
        self.path = Path(path)
        self._settings, self._modules = settings, dict(modules or {})
        self._runs: dict[str, Attached] = {}
        self._updates: dict[str, int] = {}

    @property
    def state_key(self) -> str:
        return self._generate_state_key(path=str(self.path))

    def state_dict(self) -> dict[str, Any]:
        return {"updates": {**self._updates, **{name: run.updates for name, run in self._runs.items()}}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._updates = dict(state_dict["updates"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        if trainer.global_step == 0:
            self._updates = {}  # of an earlier training
        optimizers = list(trainer.optimizers)
        if not optimizers:
            raise InputError("the module has no optimizer (configure_optimizers), whose updates could be recorded")
        one = len(optimizers) == 1
        parts = {"": (pl_module, optimizers[0])} if one else self._parts(pl_module, optimizers)
        self._check(list(parts))
        for name, (module, optimizer) in parts.items():
            updates = self._updates.get(name)
            if updates is None and trainer.global_step:  # the checkpoint was made without this callback
                updates = trainer.global_step if one else 0
            settings = {**self._settings, **self._modules.get(name, {})}
            if not one and name == "" and updates is None and settings.get("threshold") is None:
                settings["threshold"] = _rates(module, optimizers, settings)
            self._runs[name] = Attached(
                module, self.path / name, optimizer=optimizer, updates=updates, settings=settings
            )
            self._updates[name] = self._runs[name].updates

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, run in self._runs.items():
            if run.updates == self._updates[name]:
                continue  # gradients were only accumulated
            self._updates[name] = run.updates
            if run.at_record:
                run.recorder.log(**_numbers(trainer, outputs))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(exception)

    def _parts(self, root: nn.Module, optimizers: list[Optimizer]) -> dict[str, tuple[nn.Module, Optimizer]]:
        """The modules that are runs of their own: those with layers."""
        embeddings = bool(self._settings.get("embeddings"))
        parts = modules_of(root, optimizers)
        return {n: part for n, part in parts.items() if n == "" or any(find_layers(part[0], embeddings=embeddings))}

    def _check(self, names: list[str]) -> None:
        """Refuse what does not fit the modules that the trainer has."""
        if not names:
            raise InputError("no module that an optimizer trains has a layer with filters")
        unknown = [name for name in self._modules if name not in names or not name]
        if unknown:
            there = ", ".join(filter(None, names)) or "only one run, of the whole module: give its settings directly"
            raise InputError(f"modules= names {unknown[0]!r}, but there is {there}")
        for setting in ("sinks", "live"):
            if len(names) > 1 and self._settings.get(setting):
                raise InputError(f"{setting}= is of one run: give it by module, modules={{{names[0]!r}: ...}}")

    def _close(self, error: BaseException | None) -> None:
        runs, self._runs = self._runs, {}
        for name, run in runs.items():
            self._updates[name] = run.updates
            run.close(error)


def modules_of(root: nn.Module, optimizers: list[Optimizer]) -> dict[str, tuple[nn.Module, Optimizer]]:
    """Which optimizer trains which module of a network that has several, by module name.

    Modules are the children of the root or, while a module has but one child with weights in an optimizer, of that.
    Where a child has weights in several optimizers (matrices in one, biases in another), the root is the one module.
    """
    owner = {
        id(p): index for index, each in enumerate(optimizers) for group in each.param_groups for p in group["params"]
    }

    def owners(module: nn.Module, deep: bool = True) -> set[int]:
        return {owner[id(p)] for p in module.parameters(recurse=deep) if id(p) in owner}

    base, prefix = root, ""
    while True:
        children = {prefix + name: child for name, child in base.named_children() if owners(child)}
        if len(children) != 1 or owners(base, deep=False):
            break
        [(name, base)] = children.items()
        prefix = f"{name}."
    trained = {name: owners(child) for name, child in children.items()}
    if owners(base, deep=False) or any(len(each) > 1 for each in trained.values()) or not children:
        return {"": (root, optimizers[min(owners(root), default=0)])}
    return {
        clean_name(f"{name}.").removesuffix("."): (child, optimizers[min(trained[name])])
        for name, child in children.items()
    }


def _rates(module: nn.Module, optimizers: list[Optimizer], settings: dict[str, Any]) -> dict[str, float]:
    """The initial learning rate of every layer in the optimizer that has its weight."""
    rates = {
        id(p): float(group.get("initial_lr", group["lr"]))
        for each in optimizers
        for group in each.param_groups
        for p in group["params"]
    }
    chosen = {name: settings[name] for name in ("heads", "embeddings", "layers") if name in settings}
    found, _ = find_layers(module, most=MOST, **chosen)
    return {glob.escape(each.layer.name): rates[id(each.weight)] for each in found if id(each.weight) in rates}


def _numbers(trainer: Trainer, outputs: Any) -> dict[str, Any]:
    """The loss of this batch, which Lightning has divided by the batches it accumulates, and what was logged."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    numbers = {} if not isinstance(loss, Tensor) else {"loss": loss * trainer.accumulate_grad_batches}
    return {**numbers, **{name: value for name, value in trainer.callback_metrics.items() if name != "epoch"}}
