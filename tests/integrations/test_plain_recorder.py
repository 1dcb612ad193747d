"""Fabric and accelerate leave the loop to the user: the plain Recorder works there as it stands."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import Recorder, open_run


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def loader():
    g = torch.Generator().manual_seed(1)
    return DataLoader(
        TensorDataset(torch.randn(48, 6, generator=g), torch.randint(3, (48,), generator=g)), batch_size=4
    )


def plain(path, accumulate):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, path, optimizer=optimizer, every=2, threshold=1e-3):
        for i, (x, y) in enumerate(loader()):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), y)
            (loss / accumulate).backward()
            if (i + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()


def same(path, other):
    run, other = open_run(path), open_run(other)
    assert run.steps.tolist() == other.steps.tolist() and list(run) == list(other)
    for name in run:
        np.testing.assert_array_equal(run[name].distance, other[name].distance)  # bitwise: the same operations
    assert all(torch.equal(run.final()[name], value) for name, value in other.final().items())


def test_fabric_with_mixed_precision(tmp_path):
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = network()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batches = fabric.setup_dataloaders(loader())
    with Recorder(model.module, tmp_path / "run", optimizer=optimizer, every=2, threshold=1e-3):
        for x, y in batches:
            fabric.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    plain(tmp_path / "plain", 1)
    assert open_run(tmp_path / "run").steps.tolist() == [2, 4, 6, 8, 10, 12]
    same(tmp_path / "run", tmp_path / "plain")


@pytest.fixture
def accelerate():
    """Its settings are those of the process, and other tests have made some."""
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(True)
    yield accelerate
    accelerate.state.AcceleratorState._reset_state(True)


def test_accelerate_with_mixed_precision_and_accumulated_gradients(tmp_path, accelerate):
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
    model = network()
    model, optimizer, batches = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), loader())
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=2, threshold=1e-3):
        for x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
                optimizer.zero_grad()
    plain(tmp_path / "plain", 3)
    assert open_run(tmp_path / "run").steps.tolist() == [2, 4]
    same(tmp_path / "run", tmp_path / "plain")


def test_fabrics_wrapper_is_looked_through():
    from lightning.fabric import Fabric

    from phenoscope.record.layers import find_layers

    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    wrapped = Fabric(accelerator="cpu", devices=1).setup(model)
    assert [found.layer.name for found in find_layers(wrapped)[0]] == [
        found.layer.name for found in find_layers(model)[0]
    ]
