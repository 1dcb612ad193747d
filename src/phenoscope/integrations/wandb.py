"""Weights & Biases as a sink of the recorder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.extras import need

_STEP = "phenoscope/step"
_BINS = 64


class WandB:
    """Logs layer means and histograms by filter to Weights & Biases.

        Recorder(model, "runs/vgg", optimizer=optimizer, sinks=[WandB(project="vgg")])

    With settings, a run of its own is opened (and finished) beside any run of yours, and every record is a row of it.

    Without settings, the values join the run that is active. The counter of its rows belongs to your training then,
    and a row logged late would make W&B drop yours; so values are added to the row that your next `wandb.log` sends,
    under the axis "phenoscope/step": of the records that fall on one row, the last one counts.

    Args:
        run: a run of yours, instead of the active one.
        prefix: stands before every name, as "generator/" where several recorders share a run.
        settings: for `wandb.init`: project, name, dir, mode ...

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, *, run: Any = None, prefix: str = "", **settings: Any) -> None:
        self._wandb = need("wandb", "wandb")
        self._settings, self._prefix = settings, prefix
        self._run = run if run is not None or settings else self._wandb.run
        self._own = self._run is None
        self._defined: set[str] = set()

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Log the values of a record."""
        self._log(step, values)

    def histograms(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Log the values by filter of a record."""
        made = {name: self._wandb.Histogram(np_histogram=np.histogram(a, _BINS)) for name, a in arrays.items()}
        self._log(step, {f"histograms/{name}": histogram for name, histogram in made.items()})

    def close(self) -> None:
        """Finish the run if this sink has opened it."""
        if self._own and self._run is not None:
            self._run.finish()
            self._run = None

    def _log(self, step: int, values: dict[str, Any]) -> None:
        named = {self._prefix + name: value for name, value in values.items()}
        if self._own:
            if self._run is None:  # with the first record, as processes that record nothing need no run
                self._run = self._wandb.init(**{"reinit": "create_new", **self._settings})
            self._run.log(named, step=step)
            return
        axis = self._prefix + _STEP
        for name in named.keys() - self._defined:
            self._run.define_metric(name, step_metric=axis)
        self._defined |= named.keys()
        self._run.log({**named, axis: step}, commit=False)
