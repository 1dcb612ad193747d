"""W&B's offline file, read back, holds what the run holds; a run of the user loses nothing of its own."""

import json
import os
import struct
import time

import numpy as np
import pytest
import torch
from torch import nn

os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_ERROR_REPORTING="false", WANDB_CONSOLE="off")

from phenoscope import Recorder, open_run
from phenoscope.integrations.wandb import WandB
from phenoscope.record.run import MEASURES

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def recorded(path, sink, after=lambda step: None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    settings = dict(optimizer=optimizer, every=2, threshold=5e-3, sinks=[sink] if sink else [], histograms_every=4)
    with Recorder(model, path, **settings) as recorder:
        for step in range(1, 7):
            loss = model(torch.randn(8, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
            after(step)
    return open_run(path)


def records(file):
    """The messages of an offline file: a LevelDB log, in blocks of 32 KiB; checksum, length, kind before every part."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + length > len(data):
            return  # still being written
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(message)
            message = b""


def rows(folder):
    """The rows of the history in the only offline file under a folder: {name: value}."""
    (file,) = folder.rglob("*.wandb")
    while not (found := list(records(file))) or found[-1].WhichOneof("record_type") != "exit":
        time.sleep(0.05)  # W&B's own process may write the last of it a moment after finish() returns
    history = [record.history.item for record in found if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in history]


def test_a_run_of_its_own_holds_the_layer_means_the_scalars_and_the_histograms(tmp_path):
    run = recorded(tmp_path / "run", WandB(project="digits", dir=str(tmp_path)))
    assert wandb.run is None  # it never becomes the active run
    history = rows(tmp_path)
    assert [row["_step"] for row in history] == [2, 4, 6]
    for i, row in enumerate(history):
        for measure in MEASURES:
            for layer in run:
                assert row[f"{measure}/{layer}"] == float(run.means[measure].sel(layer=layer)[i])
        assert row["loss"] == float(run.scalars.loss[i]) and row["lr"] == 1e-2
        for layer in run:
            drawn = row.get(f"histograms/distance/{layer}/values")
            assert (drawn is not None) == (row["_step"] in (2, 4))
            assert drawn is None or sum(drawn) == len(run[layer].filter)


@pytest.mark.parametrize("explicit", [False, True])
def test_the_run_that_is_active_loses_none_of_the_user_s_rows(tmp_path, explicit):
    with wandb.init(project="digits", dir=str(tmp_path)) as mine:

        def after(step):
            mine.log({"mine": float(step)}, step=step if explicit else None)

        run = recorded(tmp_path / "run", WandB(prefix="net/"), after)
        assert wandb.run is mine
    history = rows(tmp_path)
    assert [row["mine"] for row in history if "mine" in row] == [1, 2, 3, 4, 5, 6]
    ours = [row for row in history if "net/distance/0" in row]
    assert ours, "the last record is sent at the latest when the run is finished"
    last = ours[-1]
    assert last["net/phenoscope/step"] == 6
    np.testing.assert_array_equal(last["net/distance/0"], run.means.distance.sel(layer="0")[-1])


def test_a_sink_that_gets_nothing_opens_no_run(tmp_path):
    WandB(project="digits", dir=str(tmp_path)).close()
    assert not list(tmp_path.iterdir())


def test_training_is_bitwise_the_same_with_it(tmp_path):
    without = recorded(tmp_path / "without", None).final()  # whose data come from torch's global random numbers
    with_it = recorded(tmp_path / "with", WandB(project="digits", dir=str(tmp_path))).final()
    assert all(torch.equal(without[name], with_it[name]) for name in without)


def test_a_missing_wandb_is_said_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ImportError, match=r"phenoscope\[wandb\]"):
        WandB()
