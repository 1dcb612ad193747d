"""The recorder as a callback of Hugging Face's `transformers.Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.extras import need
from .attached import Attached, check_settings

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    TrainerCallback = need("transformers", "transformers").TrainerCallback

_STATE = "phenoscope"  # of the count in the trainer's state, which its checkpoints hold
_OWN = ("learning_rate", "epoch")  # the record has the rate at its own step


class Record(TrainerCallback):
    """Records how far every filter moves while a `transformers.Trainer` trains.

        from phenoscope.integrations.transformers import Record

        trainer = Trainer(model, args, train_dataset=dataset, callbacks=[Record("runs/gpt2", every=10)])
        trainer.train()

    Records count updates of the optimizer, not batches. What the trainer logs (loss, gradient norm, evaluations) is
    kept beside them, at its `logging_steps`. The count goes into the trainer's checkpoints:
    `train(resume_from_checkpoint=...)` goes on with the run that is there from the checkpoint's update on, the first
    record marked as a gap; later records, whose updates are made again, are dropped. In a loop of your own with
    `accelerate` use `phenoscope.Recorder`.

    Args:
        path: the folder of the run.
        settings: the Recorder's other arguments (`every`, `threshold`, `embeddings`, `overwrite` ...). `overwrite`
            replaces a run only when training begins from the start.

    Raises:
        ImportError: transformers is not installed.
        InputError: a setting that the trainer decides (`optimizer`, `resume`, `step`); when training begins: what the
            Recorder refuses, such as a folder that holds a run already.
    """

    def __init__(self, path: str | Path, **settings: Any) -> None:
        check_settings(settings)
        self.path = Path(path)
        self._settings = settings
        self._run: Attached | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        settings = self._settings
        if self._run is not None and args.auto_find_batch_size:  # the trainer begins anew, with smaller batches
            settings = {**settings, "overwrite": True}
        updates: int | None = None
        if state.global_step:
            kept: Any = state.stateful_callbacks
            updates = kept.get(_STATE, {}).get("attributes", {}).get("updates", state.global_step)
        self._run = Attached(
            kwargs["model"], self.path, optimizer=kwargs["optimizer"], updates=updates, settings=settings
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._run is not None:
            states: Any = state.stateful_callbacks
            states[_STATE] = {"args": {}, "attributes": {"updates": self._run.updates}}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._run is None or not logs:
            return
        if "train_runtime" in logs:  # the summary; the trainer may load its best weights next, which are not the last
            self._close()
        else:
            self._run.recorder.log(**{name: value for name, value in logs.items() if name not in _OWN})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.close()
