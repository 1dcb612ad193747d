"""The script that times running measures: what it looks at is there, and looking changes no training."""

import runpy
from pathlib import Path

import numpy as np
import torch

from phenoscope import data, models

ROOT = Path(__file__).parents[2]


def test_every_measure_gives_finite_numbers_and_leaves_training_alone():
    watch = runpy.run_path(str(ROOT / "benchmarks" / "watch.py"))
    part = data.mnist1d(train=300, generator=0).train
    model = models.mlp(part[0].shape[1:], 10, width=(100, 100), generator=0)
    looks = watch["observers"](model, part)
    assert len(looks) == 7
    for name, observe in looks.items():
        assert np.isfinite(np.asarray(torch.as_tensor(observe(model)))).all(), name
    watch["check"](model, part, looks)  # asserts that both trainings end at the same bits
