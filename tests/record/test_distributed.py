"""Two gloo processes on the CPU give the numbers of one: DistributedDataParallel, and FSDP2 with every kind of cut."""

import os
import socket
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.train import Watch

# rows that do not divide by two, heads that straddle, transposed and grouped transposed convolutions


class Experts(nn.Module):
    """Three experts in one weight, which two processes share by expert."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 6, 4))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            {
                "conv": nn.Conv2d(3, 5, 3),
                "up": nn.ConvTranspose2d(6, 9, 2, groups=3),
                "up1": nn.ConvTranspose2d(5, 4, 2),
                "attention": nn.MultiheadAttention(12, 3),
                "linear": nn.Linear(7, 1),
                "wide": nn.Linear(3, 9),
                "experts": Experts(),
            }
        )
    )


def update(model, step):
    """The same change of every weight however it is spread."""
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            g = torch.Generator().manual_seed(1000 * step + index)
            move = torch.randn(parameter.shape, generator=g) * (torch.rand(parameter.shape, generator=g) < 0.2) * 0.1
            if hasattr(parameter, "placements"):
                from torch.distributed.tensor import distribute_tensor

                move = distribute_tensor(move, parameter.device_mesh, parameter.placements).to_local()
                parameter.to_local().add_(move)
            else:
                parameter.add_(move)


def record(model, path):
    with Recorder(model, path, every=1, threshold=0.05, snapshots="all") as recorder:
        for step in range(3):
            update(model, step)
            recorder.step(loss=step)


@contextmanager
def one_of_two(rank, port):
    """This process as one of two gloo ranks."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    yield
    dist.destroy_process_group()


def spread(model, how, children):
    """The model under DistributedDataParallel, or its children and itself under FSDP2."""
    if how == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for child in children:
        fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _records(rank, port, path, how):
    with one_of_two(rank, port):
        model = network()
        record(spread(model, how, model.children() if how == "fsdp2, children" else []), path)


def train(model, path):
    """A real training; both processes see the same batches, so that averaging gradients changes nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    g = torch.Generator().manual_seed(5)
    watch = Watch({"outputs": lambda module: module(torch.ones(1, 3, 6, 6))}, at=3)  # under FSDP2 a matter of all
    with Recorder(model, path, optimizer=optimizer, every=2, threshold=1e-3, watch=watch):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(4, 3, 6, 6, generator=g)).square().mean().backward()
            optimizer.step()


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))


def _trains(rank, port, path, how):
    with one_of_two(rank, port):
        model = small()
        model = spread(model, how, [model[0]])
        train(model, path)
        if how == "fsdp2":
            with pytest.raises(InputError, match="already holds a run"):  # on both: none waits for the other
                train(model, path)
            (path.parent / f"refused {rank}").touch()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("how", ["ddp", "fsdp2", "fsdp2, children"])
def test_two_processes_write_the_numbers_of_one(tmp_path, how):
    record(network(), tmp_path / "one")
    mp.start_processes(_records, (free_port(), tmp_path / "two", how), nprocs=2, start_method="spawn")
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(two[name].distance, one[name].distance, rtol=1e-6, err_msg=name)  # kept as float32
        np.testing.assert_array_equal(two[name].changed, one[name].changed, err_msg=name)
        np.testing.assert_array_equal(two[name].idle, one[name].idle, err_msg=name)
        assert float(one[name].idle.mean()) > 0 or name.endswith("attention.q")
    assert two.scalars.loss.values.tolist() == [0, 1, 2] and two.snapshots == one.snapshots
    for states in ((one.final(), two.final()), (one.snapshot(3), two.snapshot(3))):
        assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_real_training_on_two_processes_writes_what_one_process_writes(tmp_path, how):
    train(small(), tmp_path / "one")
    mp.start_processes(_trains, (free_port(), tmp_path / "two", how), nprocs=2, start_method="spawn")
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert two.steps.tolist() == one.steps.tolist() == [2, 4, 6] and two.layers["0"].trainable
    for name in one:  # 1e-4: gradients are summed in another order, and differences of weights magnify that
        np.testing.assert_allclose(two[name].distance, one[name].distance, rtol=1e-4)
    assert two.watched["step"].values.tolist() == [0, 3, 6]
    np.testing.assert_allclose(two.watched.outputs, one.watched.outputs, rtol=1e-4)
    assert len(list(tmp_path.glob("refused *"))) == (2 if how == "fsdp2" else 0)
