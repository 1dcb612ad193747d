"""TensorBoard's event files, read back, hold what the run holds."""

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.integrations.tensorboard import TensorBoard
from phenoscope.record.run import MEASURES

pytest.importorskip("tensorboard")


def recorded(path, sink, steps=6, histograms_every=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    settings = dict(
        optimizer=optimizer, every=2, threshold=5e-3, sinks=[sink] if sink else [], histograms_every=histograms_every
    )
    with Recorder(model, path, **settings) as recorder:
        for _ in range(steps):
            loss = model(torch.randn(8, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
    return open_run(path)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def test_the_event_files_hold_the_layer_means_the_scalars_and_the_histograms(tmp_path):
    run = recorded(tmp_path / "run", TensorBoard(tmp_path / "logs"))
    read = events(tmp_path / "logs")
    tags = {f"{measure}/{layer}" for measure in MEASURES for layer in run} | {"loss", "lr"}
    assert set(read.Tags()["scalars"]) == tags
    for tag in tags - {"loss", "lr"}:
        measure, layer = tag.split("/")
        points = read.Scalars(tag)
        assert [point.step for point in points] == [2, 4, 6]
        expected = run.means[measure].sel(layer=layer)
        np.testing.assert_allclose([point.value for point in points], expected, rtol=1e-6)  # float32 in the file
    np.testing.assert_allclose([point.value for point in read.Scalars("loss")], run.scalars.loss, rtol=1e-6)
    for layer in run:
        drawn = read.Histograms(f"distance/{layer}")
        assert [event.step for event in drawn] == [2, 4]
        for event in drawn:
            values = run[layer].distance.sel(step=event.step)
            assert event.histogram_value.num == len(values)
            np.testing.assert_allclose(event.histogram_value.sum, float(values.sum()), rtol=1e-12)
            np.testing.assert_allclose(event.histogram_value.max, float(values.max()), rtol=1e-12)


def test_a_writer_of_the_user_is_shared_by_prefix_and_stays_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path / "logs")
    recorded(tmp_path / "a", TensorBoard(writer, prefix="generator/"))
    recorded(tmp_path / "b", TensorBoard(writer, prefix="discriminator/"))
    writer.add_scalar("mine", 1.0, 7)
    writer.close()
    scalars = set(events(tmp_path / "logs").Tags()["scalars"])
    assert {"mine", "generator/distance/0", "discriminator/idle/2"} <= scalars and "distance/0" not in scalars


def test_a_sink_that_gets_nothing_leaves_no_file(tmp_path):
    TensorBoard(tmp_path / "logs").close()
    assert not (tmp_path / "logs").exists()


def test_training_is_bitwise_the_same_with_it(tmp_path):
    without = recorded(tmp_path / "without", None).final()  # whose data come from torch's global random numbers
    with_it = recorded(tmp_path / "with", TensorBoard(tmp_path / "logs")).final()
    assert all(torch.equal(without[name], with_it[name]) for name in without)


def test_a_missing_tensorboard_is_said_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"phenoscope\[tensorboard\]"):
        TensorBoard(tmp_path)
