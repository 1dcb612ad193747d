"""TensorBoard as a sink of the recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..core.extras import need


class TensorBoard:
    """Writes layer means as scalars and values by filter as histograms into TensorBoard's event files.

        Recorder(model, "runs/vgg", optimizer=optimizer, sinks=[TensorBoard("logs/vgg")])

    Args:
        target: the folder of the event files, or a `SummaryWriter` of yours, which stays open at the end.
        prefix: stands before every tag, as "generator/" where several recorders share a target.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, target: str | Path | Any, *, prefix: str = "") -> None:
        need("tensorboard", "tensorboard")
        self._folder = str(target) if isinstance(target, (str, Path)) else None
        self._writer: Any = None if self._folder is not None else target
        self._prefix = prefix

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Write the values of a record."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import FileWriter

        writer = self._open()
        files = getattr(writer, "file_writer", None)
        if not isinstance(files, FileWriter):
            for name, value in values.items():
                writer.add_scalar(self._prefix + name, value, step)
            return
        # a tenth of the time of `add_scalar`, which makes an event of every value
        drawn = [Summary.Value(tag=self._prefix + name, simple_value=value) for name, value in values.items()]
        files.add_summary(Summary(value=drawn), step)

    def histograms(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the values by filter of a record."""
        writer = self._open()
        for name, array in arrays.items():
            writer.add_histogram(self._prefix + name, array, step)

    def close(self) -> None:
        """Write what is left; a writer that this sink has opened is closed."""
        if self._writer is None:
            return
        if self._folder is None:
            self._writer.flush()
        else:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        if self._writer is None:  # opened with the first record: processes that record nothing leave no empty file
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder)
        return self._writer
