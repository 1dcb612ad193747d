"""How a run ends: closed or interrupted, it keeps its records, says which it was, and can be gone on with."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import store
from phenoscope.record.ledger import Ledger


def recorder(path, **settings):
    return Recorder(nn.Sequential(nn.Linear(2, 2)), path, **{"every": 1, "threshold": 0.1, **settings})


def test_a_closed_run_and_an_interrupted_one_say_so(tmp_path):
    with recorder(tmp_path / "closed", every=10) as closed:
        for _ in range(13):
            closed.step()
        assert "ended" not in open_run(tmp_path / "closed").metadata
    assert open_run(tmp_path / "closed").metadata["ended"] == {"step": 13, "interrupted": False}
    with pytest.raises(RuntimeError, match="broke"), recorder(tmp_path / "broken") as broken:
        broken.step()
        raise RuntimeError("it broke")
    assert open_run(tmp_path / "broken").metadata["ended"] == {"step": 1, "interrupted": True}
    again = recorder(tmp_path / "broken", resume=True)
    assert "ended" not in open_run(tmp_path / "broken").metadata, "it has not ended any more"
    again.close()


def test_an_abandoned_run_keeps_its_records_and_not_the_weights_of_now(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 40)
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    left = Recorder(model, tmp_path / "run", optimizer=optimizer, every=1)
    for _ in range(100):  # more than the journal usually holds
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    before = open_run(tmp_path / "run").snapshots
    left.abandon()
    left.abandon()  # and again does nothing, nor does closing
    left.close()
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 101)) and run.metadata["ended"]["interrupted"]
    assert run.snapshots[: len(before)] == before and 100 not in run.snapshots
    with pytest.raises(InputError, match="kept no final state"):
        run.final()
    optimizer.step()  # no longer counted
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, resume=True):
        optimizer.step()
    assert open_run(tmp_path / "run").steps.tolist() == list(range(1, 102))


_OPEN = """
import sys
from torch import nn
from phenoscope import Recorder, train
watch = train.Watch({"norm": lambda model: model[0].weight.norm()}, at=1)
recorder = Recorder(nn.Sequential(nn.Linear(2, 2)), sys.argv[1], every=1, threshold=0.1, watch=watch)
for _ in range(300):
    recorder.step()
"""


def test_a_program_that_ends_with_an_open_recorder_prints_nothing_and_loses_nothing(tmp_path):
    """The threads that write arrays are gone by then: the last records stay in the journal."""
    ran = subprocess.run(
        [sys.executable, "-c", _OPEN, str(tmp_path / "run")], capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stderr == "" and ran.stdout == ""
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 301)) and run.metadata["ended"]["interrupted"]
    assert run.watched["step"].values.tolist() == list(range(301))
    with recorder(tmp_path / "run", resume=True) as again:
        again.step()
    assert open_run(tmp_path / "run").steps.tolist() == list(range(1, 302))


def test_arrays_that_cannot_be_written_once_are_written_the_next_time(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("cannot schedule new futures after shutdown")

    one = recorder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(store.Arrays, "append", fail)
        for _ in range(store.CHUNK):
            one.step()
        one._target.flush()
    assert len(open_run(tmp_path / "run").steps) == store.CHUNK and one._target.failed is None
    one.step()
    one.close()
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, store.CHUNK + 2)) and run._records == store.CHUNK + 1


def test_arrays_that_never_can_be_written_are_reported_and_nothing_is_lost(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no")

    with pytest.warns(RuntimeWarning, match="has stopped, training goes on"):
        one = recorder(tmp_path / "run")
        monkeypatch.setattr(store.Arrays, "append", fail)
        for _ in range(2):
            for _ in range(store.CHUNK):
                one.step()
            one._target.flush()
        one.close()
    assert len(open_run(tmp_path / "run").steps) == 2 * store.CHUNK


def test_resuming_removes_the_weights_of_updates_that_are_made_again(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with Recorder(model, tmp_path / "run", every=1, threshold=0.1) as first:
        for _ in range(20):
            first.step()
    run = open_run(tmp_path / "run")
    assert run.snapshots == [0, 1, 2, 3, 4, 6, 9, 14, 20] and run.final()
    for name in ("step-best.safetensors", "mine.txt"):
        (tmp_path / "run" / "snapshots" / name).write_text("mine")
    second = Recorder(model, tmp_path / "run", every=1, threshold=0.1, resume=True, step=9)
    run = open_run(tmp_path / "run")
    assert run.snapshots == [0, 1, 2, 3, 4, 6, 9]
    with pytest.raises(InputError, match="kept no final state"):  # it was that of step 20
        run.final()
    assert (tmp_path / "run" / "snapshots" / "step-best.safetensors").read_text() == "mine"
    assert (tmp_path / "run" / "snapshots" / "mine.txt").is_file()
    second.step()
    second.close()
    assert open_run(tmp_path / "run").snapshots[-1] == 10


def test_a_run_gone_on_with_at_its_end_keeps_its_weights(tmp_path):
    recorder(tmp_path / "run").close()
    with recorder(tmp_path / "run", every=10, resume=True, step=0) as one:
        for _ in range(13):
            one.step()
    again = recorder(tmp_path / "run", resume=True, step=13)
    assert open_run(tmp_path / "run").snapshots[-1] == 13 and open_run(tmp_path / "run").final()
    again.close()


def test_a_resume_that_is_refused_removes_nothing(tmp_path):
    with recorder(tmp_path / "run") as one:
        for _ in range(5):
            one.step()
    before = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="another model"):
        Recorder(nn.Sequential(nn.Linear(3, 2)), tmp_path / "run", threshold=0.1, resume=True, step=1)
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*")) == before


def test_a_recorder_that_cannot_begin_leaves_the_folder_free(tmp_path, monkeypatch):
    def fail(self):
        raise InputError("this sharding cannot be recorded")

    with monkeypatch.context() as patch:
        patch.setattr("phenoscope.record.followed.Followed.build", fail)
        with pytest.raises(InputError, match="sharding"):
            recorder(tmp_path / "run")
    recorder(tmp_path / "run", overwrite=True).close()


def test_a_failed_removal_still_leaves_a_run_to_replace(tmp_path, monkeypatch):
    recorder(tmp_path / "run").close()

    def fail(*_):
        raise OSError("busy")

    with monkeypatch.context() as patch:
        patch.setattr("phenoscope.record.store.shutil.rmtree", fail)
        with pytest.raises(OSError, match="busy"):
            Ledger(tmp_path / "run", [], {}, max_bytes=1.0, overwrite=True, resume=False, step=None)
    assert store.is_run(tmp_path / "run")
    recorder(tmp_path / "run", overwrite=True).close()
    assert len(open_run(tmp_path / "run").steps) == 0


def test_mean_distance_is_that_of_the_averages(tmp_path):
    """Over thinned rows, a gap, a NaN and a layer that came later; 1e-12: the same sums in another order."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(steps):
        for _ in range(steps):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape))
            optimizer.step()

    torch.manual_seed(0)
    with (
        pytest.warns(RuntimeWarning) as caught,
        Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, threshold=0.1, max_bytes=20_000),
    ):
        train(300)
        model.append(nn.Linear(2, 3))
        optimizer.add_param_group({"params": model[2].parameters()})
        train(50)
        with torch.no_grad():
            model[0].weight[1, 1] = float("nan")
        train(2)
    assert len(caught) == 2  # thinned, and not finite
    run = open_run(tmp_path / "run")
    assert 0 < len(run["0"].step) < 352 and list(run) == ["0", "1", "2"]
    for name in run:
        np.testing.assert_allclose(run.mean_distance[name], run.average(name)["distance"], rtol=1e-12, err_msg=name)
