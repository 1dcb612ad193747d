"""Sinks get what the run gets, by layer and by filter, and whatever one of them does, nothing else notices."""

import random
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import sinks as module
from phenoscope.record.run import MEASURES


class Kept:
    """A sink that keeps all it is given."""

    def __init__(self):
        self.steps, self.values, self.arrays, self.closed, self.threads = [], [], {}, 0, set()

    def __call__(self, step, values):
        self.steps.append(step)
        self.values.append(values)
        self.threads.add(threading.current_thread())

    def histograms(self, step, arrays):
        self.arrays[step] = arrays

    def close(self):
        self.closed += 1


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 3))


def trained(path, steps=12, *, model=None, every=2, after=lambda step, recorder: None, **settings):
    """The weights after a training, recorded or (path None) not."""
    model = model or small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    g = torch.Generator().manual_seed(1)
    recorder = path and Recorder(model, path, optimizer=optimizer, every=every, threshold=1e-3, **settings)
    for step in range(1, steps + 1):
        loss = model(torch.randn(4, 3, 8, 8, generator=g)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder:
            recorder.log(loss=loss)
            after(step, recorder)
    if recorder:
        recorder.close()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_sink_gets_the_layer_means_and_scalars_that_the_run_holds(tmp_path):
    kept = Kept()
    trained(tmp_path / "run", sinks=[kept])
    run = open_run(tmp_path / "run")
    assert kept.steps == run.steps.tolist() == [2, 4, 6, 8, 10, 12]
    names = {f"{measure}/{layer}" for measure in MEASURES for layer in run} | {"loss", "lr"}
    for i, values in enumerate(kept.values):
        assert set(values) == names and all(type(value) is float for value in values.values())
        for measure in MEASURES:
            for layer in run:  # the same numbers, from the same formula: equal to the last bit
                assert values[f"{measure}/{layer}"] == float(run.means[measure].sel(layer=layer)[i])
        assert values["loss"] == float(run.scalars.loss[i]) and values["lr"] == 1e-3
    assert kept.closed == 1
    assert threading.main_thread() not in kept.threads and len(kept.threads) == 1


def test_values_by_filter_come_on_their_own_schedule(tmp_path):
    kept, bare = Kept(), []
    trained(tmp_path / "run", sinks=[kept, lambda *record: bare.append(record)], histograms_every=6)
    run = open_run(tmp_path / "run")
    assert list(kept.arrays) == [2, 6, 12] and len(bare) == 6
    for step, arrays in kept.arrays.items():
        assert set(arrays) == {f"{measure}/{layer}" for measure in ("distance", "changed", "idle") for layer in run}
        for name, array in arrays.items():
            measure, layer = name.split("/")
            np.testing.assert_array_equal(array, run[layer][measure].sel(step=step))


def test_values_by_filter_come_by_default_every_100_records_and_not_at_all_with_0(tmp_path):
    kept, none = Kept(), Kept()
    trained(tmp_path / "run", 110, every=1, sinks=[kept])
    trained(tmp_path / "other", 4, every=1, sinks=[none], histograms_every=0)
    assert list(kept.arrays) == [1, 100] and not none.arrays


def test_training_with_sinks_is_bitwise_the_same_and_so_is_the_run(tmp_path):
    def failing(step, values):
        random.random()
        raise OSError("no connection")

    alone = trained(None)
    trained(tmp_path / "without")
    again = trained(tmp_path / "with", sinks=[Kept(), failing], histograms_every=2)
    assert all(torch.equal(alone[name], again[name]) for name in alone)
    without, with_sinks = open_run(tmp_path / "without"), open_run(tmp_path / "with")
    assert without.means.equals(with_sinks.means) and without.scalars.equals(with_sinks.scalars)


def test_a_failing_sink_is_said_once_and_the_others_go_on(tmp_path, capfd):
    calls, kept = [], Kept()

    def broken(step, values):
        calls.append(step)
        if step >= 4:
            raise RuntimeError("the tracker is gone")

    trained(tmp_path / "run", sinks=[broken, kept])
    assert calls == [2, 4] and kept.steps == [2, 4, 6, 8, 10, 12] and len(open_run(tmp_path / "run").steps) == 6
    said = capfd.readouterr().err
    assert said.count("the tracker is gone") == 1 and "sink broken has stopped" in said


def test_a_sink_that_fails_to_close_or_to_draw_is_said_too(tmp_path, capfd):
    class Closing(Kept):
        def close(self):
            raise RuntimeError("cannot close")

    class Drawing(Kept):
        def histograms(self, step, arrays):
            raise RuntimeError("cannot draw")

    drawing = Drawing()
    trained(tmp_path / "run", sinks=[Closing(), drawing])
    said = capfd.readouterr().err
    assert said.count("cannot close") == 1 and said.count("cannot draw") == 1 and drawing.steps == [2]


def test_a_sink_that_hangs_holds_up_neither_training_nor_run_nor_neighbors(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(module, "_QUEUE", 4)
    entered, release, kept = threading.Event(), threading.Event(), Kept()

    def hanging(step, values):
        entered.set()
        release.wait()

    def after(step, recorder):
        recorder._target.flush()
        if step == 1:
            entered.wait()
        while step > len(kept.steps):  # the neighbor has them all, so the queue of the hanging one grows by one a step
            time.sleep(0.001)

    try:
        trained(tmp_path / "run", 12, every=1, sinks=[hanging, kept], after=after)
    finally:
        release.set()
    assert kept.steps == open_run(tmp_path / "run").steps.tolist() == list(range(1, 13))
    said = capfd.readouterr().err
    assert said.count("cannot keep up") == 1 and said.count("left behind") == 1


def test_only_a_few_records_that_wait_carry_values_by_filter():
    release, kept = threading.Event(), Kept()

    class Slow(Kept):
        def __call__(self, step, values):
            release.wait()

        def histograms(self, step, arrays):
            kept.histograms(step, arrays)

    feed = module._Feed(Slow())
    for step in range(20):
        feed.add(module.Item(step, [], {"loss": 1.0}, None, (np.empty(0), np.empty(0, np.uint32))))
    release.set()
    feed.finish()
    feed._thread.join()
    assert 4 <= len(kept.arrays) <= 5  # the thread may have taken the first before the others came


def test_a_gap_gives_only_scalars_and_a_logged_nan_is_passed_on(tmp_path):
    trained(tmp_path / "run", 4)
    kept = Kept()
    trained(
        tmp_path / "run", 4, resume=True, sinks=[kept], histograms_every=2, after=lambda s, r: r.log(loss=float("nan"))
    )
    assert kept.steps == [6, 8] and set(kept.values[0]) == {"loss", "lr"} and len(kept.values[1]) == 4 * 3 + 2
    assert all(np.isnan(values["loss"]) for values in kept.values)
    assert list(kept.arrays) == [8]


def test_nan_weights_reach_the_values_and_leave_the_histograms(tmp_path, capfd):
    model, kept = small(), Kept()

    def after(step, recorder):
        if step == 3:
            with torch.no_grad():
                model[0].weight[0] = float("nan")

    trained(tmp_path / "run", 4, model=model, sinks=[kept], histograms_every=2, after=after)
    assert "NaN or infinite weights" in capfd.readouterr().err
    assert np.isnan(kept.values[1]["distance/0"])
    assert all(np.isfinite(array).all() for array in kept.arrays[4].values())


def test_a_layer_that_appears_later_joins(tmp_path):
    torch.manual_seed(0)
    model, kept = nn.Sequential(nn.Linear(4, 3), nn.LazyLinear(2)), Kept()
    with Recorder(model, tmp_path / "run", every=1, threshold=1e-3, sinks=[kept]) as recorder:
        for step in range(3):
            if step == 1:
                model(torch.ones(1, 4))
            with torch.no_grad():
                model[0].weight += 0.1
            recorder.step()
    assert "changed/1" not in kept.values[0] and kept.values[-1]["changed/1"] == 0.0
    assert kept.values[-1]["changed/0"] == 1.0  # planted: every entry of it moved


@pytest.mark.parametrize("wrong", [[3], [Kept], print, 7])
def test_what_is_no_list_of_callables_is_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(InputError, match="sink"):
        Recorder(small(), tmp_path / "run", threshold=1.0, sinks=wrong)
    with pytest.raises(InputError, match="histograms_every"):
        Recorder(small(), tmp_path / "run", threshold=1.0, histograms_every=-1)
    assert not (tmp_path / "run").exists()


def test_sinks_get_nothing_where_nothing_is_recorded(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    kept = Kept()
    trained(tmp_path / "file" / "run", 2, sinks=[kept], live=True)
    said = capfd.readouterr().err
    assert "nothing is recorded" in said and "update 2" not in said
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    with Recorder(small(), tmp_path / "run", threshold=1.0, every=1, sinks=[kept], live=True) as recorder:
        recorder.step()
    assert not kept.steps and not (tmp_path / "run").exists() and not capfd.readouterr().err
