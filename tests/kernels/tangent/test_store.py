"""Kernels on disk: blocks, what goes on after a stop, several processes, and what is refused."""

import json

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from phenoscope import kernels, models
from phenoscope.core.errors import InputError
from phenoscope.kernels.tangent.tiles import Tangents


def net(seed=0):
    return models.mlp((5,), 2, width=6, activation="tanh", generator=seed).double()


def inputs(n, seed=0):
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("outputs", ["full", "trace", 1])
@pytest.mark.parametrize("other", [None, 4])
def test_the_array_on_disk_is_the_kernel_in_memory(tmp_path, outputs, other):
    x1, x2 = inputs(7), None if other is None else inputs(other, seed=1)
    wanted = kernels.empirical_ntk(net(), x1, x2, outputs=outputs)
    array = kernels.empirical_ntk(net(), x1, x2, outputs=outputs, chunk=3, out=tmp_path / "k")
    assert isinstance(array, zarr.Array) and array.chunks[:2] == (3, 3)
    np.testing.assert_allclose(array[...], wanted.numpy(), rtol=1e-10, atol=1e-12)  # blocks of another size
    torch.testing.assert_close(kernels.load(tmp_path / "k"), torch.from_numpy(array[...]), rtol=0, atol=0)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "k", mode="r")[2:5], array[2:5])


def counted(monkeypatch, stop=None):
    """Blocks made; an error in place of number `stop`."""
    made, real = [], Tangents.__call__

    def call(self, i, j):
        if len(made) == stop:
            raise KeyboardInterrupt
        made.append((i, j))
        return real(self, i, j)

    monkeypatch.setattr(Tangents, "__call__", call)
    return made


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    x = inputs(10)
    with monkeypatch.context() as patch:
        first = counted(patch, stop=4)
        with pytest.raises(KeyboardInterrupt):
            kernels.empirical_ntk(net(), x, chunk=3, out=tmp_path / "k")
    with pytest.raises(InputError, match=r"of 16 blocks .* are missing"):
        kernels.load(tmp_path / "k")
    with monkeypatch.context() as patch:
        second = counted(patch)
        told = []
        kernels.empirical_ntk(net(), x, out=tmp_path / "k", progress=lambda *each: told.append(each))
    assert len(first) == 4 and len(second) == 6 and not set(first) & set(second)  # of the upper half of 4 x 4
    assert told[0] == (4, 10) and told[-1] == (10, 10)
    torch.testing.assert_close(kernels.load(tmp_path / "k"), kernels.empirical_ntk(net(), x), rtol=1e-10, atol=1e-12)
    with monkeypatch.context() as patch:
        third = counted(patch)
        kernels.empirical_ntk(net(), x, out=tmp_path / "k")
    assert not third


def test_a_damaged_block_is_refused_and_made_again(tmp_path, monkeypatch):
    x, path = inputs(6), tmp_path / "k"
    kernels.empirical_ntk(net(), x, outputs="trace", chunk=3, out=path)
    block = path / "c" / "0" / "1"
    content = bytearray(block.read_bytes())
    content[5] ^= 1
    block.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        kernels.load(path)
    made = counted(monkeypatch)
    kernels.empirical_ntk(net(), x, outputs="trace", out=path)
    assert made == [(0, 1)]
    wanted = kernels.empirical_ntk(net(), x, outputs="trace")
    torch.testing.assert_close(kernels.load(path), wanted, rtol=1e-10, atol=1e-12)


def test_what_belongs_to_something_else_is_refused(tmp_path):
    x, path = inputs(4), tmp_path / "k"
    kernels.empirical_ntk(net(), x, out=path)
    frozen = net()
    frozen.linear1.weight.requires_grad_(False)
    for arguments, words in (
        ((net(1), x), "another model"),
        ((frozen, x), "another model"),
        ((net(), inputs(4, seed=3)), "other inputs x1"),
        ((net(), x, x), "other inputs x2"),
    ):
        with pytest.raises(InputError, match=words):
            kernels.empirical_ntk(*arguments, out=path)
    with pytest.raises(InputError, match="other outputs"):
        kernels.empirical_ntk(net(), x, outputs="trace", out=path)
    with pytest.raises(InputError, match="other kind"):
        kernels.empirical_nngp(net(), x, out=path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is no kernel"):
        kernels.empirical_ntk(net(), x, out=tmp_path / "mine")
    with pytest.raises(InputError, match="is no kernel"):
        kernels.save(tmp_path / "mine", torch.eye(2))
    assert (tmp_path / "mine" / "letter.txt").exists()
    with pytest.raises(InputError, match="say where"):
        kernels.empirical_ntk(net(), x, engine="local")


def test_two_processes_make_the_same_kernel(tmp_path):
    model, x = net(), inputs(9)
    told = []
    options = {"engine": "local", "jobs": 2, "progress": lambda *each: told.append(each)}
    kernels.empirical_ntk(model, x, chunk=5, out=tmp_path / "k", **options)
    wanted = kernels.empirical_ntk(model, x, chunk=5)
    torch.testing.assert_close(kernels.load(tmp_path / "k"), wanted, rtol=1e-10, atol=1e-12)
    assert told[-1] == (3, 3) and not (tmp_path / "k" / ".work").exists()


class Local(nn.Linear):
    __module__ = "__main__"


def test_a_network_of_a_script_is_refused_by_processes(tmp_path):
    with pytest.raises(InputError, match=r"cannot be sent|in a script"):
        kernels.empirical_ntk(Local(5, 2).double(), inputs(4), chunk=2, out=tmp_path / "k", engine="local", jobs=2)


def test_other_content_than_was_written_is_never_unpickled(tmp_path):
    from phenoscope.kernels.tangent.spread import block_of
    from phenoscope.lab import Lab

    work = tmp_path / "k" / ".work"
    work.mkdir(parents=True)
    (work / "model.pt").write_bytes(b"not the network")
    (work / "inputs.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is not what this kernel is made of"):
        block_of(Lab(), out=str(tmp_path / "k"), model="0" * 64, inputs="0" * 64, row=0, column=0, number=0)


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path):
    kernel = torch.randn(5, 5)
    kernels.save(tmp_path / "k", kernel, about={"dataset": "digits", "n": 5})
    assert torch.equal(kernels.load(tmp_path / "k"), kernel)
    known = json.loads((tmp_path / "k" / "zarr.json").read_text())["attributes"]["phenoscope_kernel"]
    assert known["about"] == {"dataset": "digits", "n": 5}
    limit = kernels.mlp_kernels(inputs(4), depth=2)
    kernels.save(tmp_path / "k", limit)
    found = kernels.load(tmp_path / "k")
    assert torch.equal(found.nngp, limit.nngp) and torch.equal(found.ntk, limit.ntk)
    with pytest.raises(InputError, match="no kernel at"):
        kernels.load(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="is not a kernel"):
        kernels.load(tmp_path / "other")
    with pytest.raises(InputError, match="about must be"):
        kernels.save(tmp_path / "new", kernel, about={"model": net()})


def test_features_go_block_by_block_too(tmp_path):
    model, x = net(), inputs(9)
    wanted = kernels.empirical_nngp(model, x)
    array = kernels.empirical_nngp(model, x, memory=2 * 6 * 8 * 4, out=tmp_path / "k")  # 4 examples of 6 features
    assert array.chunks == (4, 4)
    np.testing.assert_allclose(array[...], wanted.numpy(), rtol=1e-12)
    both = kernels.empirical_nngp(model, x, inputs(5, seed=1), memory=500)
    torch.testing.assert_close(both, kernels.empirical_nngp(model, x, inputs(5, seed=1)), rtol=1e-12, atol=0)
