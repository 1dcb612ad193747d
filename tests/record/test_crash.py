"""Kills, full disks and damaged files: what was flushed reads back whole, and training goes on."""

import multiprocessing
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from tests.record import endless
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import store


def check_whole(run, flushed):
    steps = run.steps
    assert steps.tolist() == list(range(1, len(steps) + 1)), "no record is missing, doubled or out of order"
    assert len(steps) >= flushed, "what was flushed is there"
    layer = run["0"]
    good = ~layer.gap.values
    np.testing.assert_allclose(
        layer.distance[good], np.repeat(3.0 * steps[good, None] ** 2, 5, 1), rtol=1e-6
    )  # float32
    assert (layer.changed[good] == 1).all() and (layer.idle[good] == 0).all()
    assert (run.scalars.i == steps).all() and np.isnan(layer.distance[~good]).all()


def test_twenty_kills_at_any_moment_lose_nothing_that_was_flushed(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        ["tests.record.endless", "zarr", "xarray", "phenoscope.record.passes.numba_kernels"]
    )
    path, progress, rng = tmp_path / "run", tmp_path / "progress", random.Random(0)
    last = 0
    for kill in range(20):
        progress.write_text("")
        child = processes.Process(target=endless.train, args=(str(path), str(progress)))
        child.start()
        while "start" not in progress.read_text():
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        child.kill()
        child.join()
        child.close()
        lines = [line.split() for line in progress.read_text().split("\n")[:-1]]
        start, flushed = int(lines[0][1]), int(lines[-1][1])
        assert start >= last, "a new recorder goes on behind what was flushed"
        last = max(start, flushed)
        run = open_run(path)
        check_whole(run, last)
        assert int(run["0"].gap.sum()) <= kill
    assert len(run.steps) > 40


_FILL = """
import resource, signal, sys, torch
from torch import nn
from phenoscope import Recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = nn.Sequential(nn.Linear(4, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
recorder = Recorder(model, sys.argv[1], optimizer=optimizer, every=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # the disk is full at 60 kB a file
for i in range(1000):
    optimizer.zero_grad()
    model(torch.randn(2, 4)).square().mean().backward()
    optimizer.step()
    if i % 20 == 0:
        recorder._target.flush()
recorder.close()
print("trained to the end")
"""


def test_a_full_disk_is_said_once_training_goes_on_and_what_was_recorded_reads_back(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "run")], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and ran.stdout.strip() == "trained to the end", ran.stderr
    assert ran.stderr.count("RuntimeWarning") == 1 and "has stopped, training goes on" in ran.stderr
    run = open_run(tmp_path / "run")
    assert len(run.steps) >= 20 and run.steps.tolist() == list(range(1, len(run.steps) + 1))
    assert not np.isnan(run["0"].distance).any()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        model = nn.Sequential(nn.Linear(4, 64))
        with pytest.warns(RuntimeWarning, match="No space left"):
            recorder = Recorder(model, tmp_path / "run", every=1, threshold=0.1)
            for _ in range(30):
                for _ in range(40):
                    recorder.step()
                recorder._target.flush()
            recorder.close()
        run = open_run(tmp_path / "run")
        assert len(run.steps) >= 40 and (run["0"].idle == 1).all()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def recorded(path, records=10):
    recorder = Recorder(nn.Sequential(nn.Linear(2, 2)), path, every=1, threshold=0.1)
    for _ in range(records):
        recorder.step()
    return recorder


def test_a_torn_last_block_of_the_journal_does_not_count(tmp_path):
    recorder = recorded(tmp_path / "run")
    recorder._target.flush()
    recorder.step()
    recorder._target.flush()
    journal = store.journal(tmp_path / "run", 0)
    whole = journal.read_bytes()
    for cut in (1, 30, 700):
        journal.write_bytes(whole[:-cut])
        assert len(open_run(tmp_path / "run").steps) == 10
    journal.write_bytes(whole)
    assert len(open_run(tmp_path / "run").steps) == 11
    recorder.close()


def test_an_interrupted_training_keeps_what_it_had_and_its_final_state(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(KeyboardInterrupt), Recorder(model, tmp_path / "run", every=1, threshold=0.1) as recorder:
        recorder.step()
        raise KeyboardInterrupt
    assert open_run(tmp_path / "run").steps.tolist() == [1]
    assert torch.equal(open_run(tmp_path / "run").final()["0.weight"], model[0].weight)


def test_a_recorder_that_is_never_closed_is_written_out_when_the_program_ends(tmp_path):
    program = """
import sys
from torch import nn
from phenoscope import Recorder
recorder = Recorder(nn.Sequential(nn.Linear(2, 2)), sys.argv[1], every=1, threshold=0.1)
for _ in range(5):
    recorder.step()
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "run")],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    assert len(open_run(tmp_path / "run").steps) == 5


@pytest.mark.parametrize(
    "file,content,message",
    [
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", "[]", "JSON object"),
        ("run.json", '{"format": 99}', "format 99"),
        ("run.json", '{"format": 1, "layers": [{"name": "a"}]}', "damaged"),
        ("state.json", "x", "state.json cannot be read"),
    ],
)
def test_damaged_runs_are_named(tmp_path, file, content, message):
    recorded(tmp_path / "run").close()
    (tmp_path / "run" / file).write_text(content)
    with pytest.raises(InputError, match=message):
        open_run(tmp_path / "run")


def test_no_run_and_no_such_layer_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path)
    recorded(tmp_path / "run").close()
    with pytest.raises(KeyError, match="no recorded layer"):
        open_run(tmp_path / "run")["nothing"]


def test_a_final_state_that_is_missing_or_damaged_is_named(tmp_path):
    Recorder(nn.Sequential(nn.Linear(2, 2)), tmp_path / "run", threshold=0.1, final=False).close()
    with pytest.raises(InputError, match="kept no final state"):
        open_run(tmp_path / "run").final()
    (tmp_path / "run" / "final.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match=r"final\.safetensors cannot be read"):
        open_run(tmp_path / "run").final()
