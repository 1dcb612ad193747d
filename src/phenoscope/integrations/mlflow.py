"""MLflow as a sink of the recorder."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from ..core.extras import need

_BATCH = 1000  # the most metrics that MLflow takes at once
_REFUSED = re.compile(r"[^/\w.\- :]")


class MLflow:
    """Logs layer means as metrics to MLflow, which has no histograms.

        Recorder(model, "runs/vgg", optimizer=optimizer, sinks=[MLflow(experiment="vgg")])

    They join the run that is active where the sink is made; otherwise a run is opened, and ended with the recording.

    Args:
        run_id: a run of yours, instead of the active one.
        experiment: the experiment of a run that is opened; made if need be.
        run_name: its name.
        tracking_uri: where it goes; default: where `mlflow` goes.
        prefix: stands before every name, as "generator/" where several recorders share a run.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(
        self,
        *,
        run_id: str | None = None,
        experiment: str = "Default",
        run_name: str = "phenoscope",  # MLflow would draw one from Python's global random numbers, which are the user's
        tracking_uri: str | None = None,
        prefix: str = "",
    ) -> None:
        mlflow = need("mlflow", "mlflow")
        active = mlflow.active_run() if run_id is None else None  # known to this thread only
        self._run_id = run_id or (active.info.run_id if active else None)
        self._own = self._run_id is None
        self._uri = tracking_uri or mlflow.get_tracking_uri()
        self._experiment, self._run_name, self._prefix = experiment, run_name, prefix
        self._client: Any = None
        self._names: set[str] = set()

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Log the values of a record."""
        self.many([(step, values)])

    def many(self, records: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Log the values of several records by as few calls as can be; a database takes a transaction for each call."""
        client, now = self._open(), int(time.time() * 1000)
        metric = need("mlflow.entities", "mlflow").Metric
        self._names.update(*(values.keys() for _, values in records))
        metrics = [
            metric(self._key(name), value, now, step) for step, values in records for name, value in values.items()
        ]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(self._run_id, metrics=metrics[start : start + _BATCH])

    def close(self) -> None:
        """End the run if this sink has opened it."""
        if self._own and self._run_id is not None:
            self._client.set_terminated(self._run_id)
            self._run_id = None

    def _open(self) -> Any:
        if self._client is None:
            self._client = need("mlflow", "mlflow").MlflowClient(self._uri)
        if self._run_id is None:
            there = self._client.get_experiment_by_name(self._experiment)
            experiment = there.experiment_id if there else self._client.create_experiment(self._experiment)
            self._run_id = self._client.create_run(experiment, run_name=self._run_name).info.run_id
        return self._client

    def _key(self, name: str) -> str:
        """The name as MLflow takes it: no odd characters, and no metric "lr" beside "lr/1", a file and a folder."""
        parts = name.split("/")
        if any("/".join(parts[:i]) in self._names for i in range(1, len(parts))):
            name = "_".join(parts)
        return _REFUSED.sub("_", self._prefix + name)
