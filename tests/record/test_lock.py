"""One writer a run: a second one is refused, in this process and in another, and a dead one blocks nobody."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record.lock import Lock

_OTHER = """
import sys
from torch import nn
from phenoscope import Recorder
recorder = Recorder(nn.Sequential(nn.Linear(2, 2)), sys.argv[1], every=1, threshold=0.1)
for _ in range(3):
    recorder.step()
recorder._target.flush()
print("writing", flush=True)
sys.stdin.read()
"""


def recorder(path, **settings):
    return Recorder(nn.Sequential(nn.Linear(2, 2)), path, every=1, threshold=0.1, **settings)


def test_another_live_process_is_named_and_a_killed_one_blocks_nobody(tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "writing\n"
            for settings in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(InputError, match=rf"{path} is being written by another process"):
                    recorder(path, **settings)
            assert open_run(path).steps.tolist() == [1, 2, 3], "what was refused has touched nothing"
        finally:
            other.send_signal(signal.SIGKILL)
    with recorder(path, resume=True) as mine:
        mine.step()
    assert open_run(path).steps.tolist() == [1, 2, 3, 4]


def test_another_recorder_of_this_process_is_named_until_it_is_closed(tmp_path):
    first = recorder(tmp_path / "run")
    first.step()
    for settings in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="another recorder of this process: close that one first"):
            recorder(tmp_path / "run", **settings)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(InputError, match="another recorder of this process"):
        recorder(tmp_path / "link", overwrite=True)
    recorder(tmp_path / "beside").close()
    first.step()
    first.close()
    second = recorder(tmp_path / "run", resume=True)
    assert len(open_run(tmp_path / "run").steps) == 2
    second.abandon()
    recorder(tmp_path / "run", overwrite=True).close()


def test_a_recorder_that_was_refused_holds_nothing(tmp_path):
    recorder(tmp_path / "run").close()
    with pytest.raises(InputError, match="already holds a run"):
        recorder(tmp_path / "run")
    with pytest.raises(InputError, match="another model"):
        Recorder(nn.Sequential(nn.Linear(3, 2)), tmp_path / "run", threshold=0.1, resume=True)
    recorder(tmp_path / "run", resume=True).close()


def _sleep(pipe):
    pipe.recv()


# JAX, once another test of this process has loaded it, warns of every fork.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_does_not_hold_the_folder_beyond_its_parent(tmp_path):
    lock = Lock(tmp_path)
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_sleep, args=(there,))
    worker.start()
    with pytest.raises(InputError, match="this process"):  # the worker's closing has not let go of it
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()  # though the worker still lives
    here.send(None)
    worker.join()


def test_a_file_system_that_cannot_lock_does_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr("phenoscope.record.lock.fcntl.flock", refuse)
    with recorder(tmp_path / "run") as one:
        one.step()
    assert open_run(tmp_path / "run").steps.tolist() == [1]
