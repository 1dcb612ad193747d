"""A training that never ends, for the tests that kill it: at record i every weight has moved by i."""

from pathlib import Path

import torch
from torch import nn

from phenoscope import Recorder
from phenoscope.record import store, writer


def train(path: str, progress: str) -> None:
    store.CHUNK, writer._FLUSH_RECORDS, writer._FLUSH_SECONDS, writer._SETTLE_SECONDS, writer._BATCH = (
        40,
        7,
        0.02,
        0.0,
        4,
    )
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(3, 5, bias=False)).double()
    recorder = Recorder(model, path, every=1, threshold=0.5, resume=True, snapshots="all")
    start = recorder._step
    with Path(progress).open("a", buffering=1) as file, torch.no_grad():
        file.write(f"start {start}\n")
        for i in range(start + 1, 10**9):
            model[0].weight.add_(float(i))
            recorder.step(i=i)
            if i % 10 == 0:
                recorder._target.flush()
                file.write(f"flushed {i}\n")
