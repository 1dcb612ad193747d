"""The recorder on a CUDA device: the numbers of the definition, and a training stream that never waits."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.record import evolution

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_holds_the_measures_and_no_update_synchronizes(tmp_path, memory_format, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 300, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = model.append(nn.Linear(300, 4)).to("cuda", dtype).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    states = [{k: v.detach().clone() for k, v in model.state_dict().items()}]
    x = torch.randn(8, 3, 12, 12, device="cuda", dtype=dtype)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, threshold=1e-4) as recorder:
        for _ in range(60):  # more than there are slots
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            torch.cuda.set_sync_debug_mode("error")
            try:
                optimizer.step()
                recorder.log(loss=loss)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
    run = open_run(tmp_path / "run")
    assert len(run.steps) == 60 and not run.scalars.loss.isnull().any()
    for name, layer in run.layers.items():
        for step, (before, after) in enumerate(itertools.pairwise(states)):
            e = evolution(before[layer.parameter], after[layer.parameter], 1e-4)
            # 1e-6: float64 sums in another order, kept as float32
            np.testing.assert_allclose(run[name].distance[step], e.distance.cpu(), rtol=1e-6)
            np.testing.assert_array_equal(run[name].changed[step], e.changed.cpu())
            np.testing.assert_allclose(run[name].idle[step], e.idle.cpu(), atol=1e-12)
