"""MLflow's file store, read back, holds what the run holds."""

import os
import random

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from phenoscope import Recorder, open_run
from phenoscope.integrations.mlflow import MLflow
from phenoscope.record.run import MEASURES

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    yield mlflow.MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def recorded(path, sink, groups=1, **scalars):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    halves = [dict(params=model[0].parameters()), dict(params=model[2].parameters(), lr=2e-2)]
    optimizer = torch.optim.Adam(model.parameters() if groups == 1 else halves, lr=1e-2)
    with Recorder(model, path, optimizer=optimizer, every=2, threshold=5e-3, sinks=[sink] if sink else []) as recorder:
        for _ in range(4):
            loss = model(torch.randn(8, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss, **scalars)
    return open_run(path)


def only_run(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])[0]


def test_a_run_of_its_own_holds_the_layer_means_and_is_ended(tmp_path, store):
    run = recorded(tmp_path / "run", MLflow(experiment="digits"))
    there = only_run(store, "digits")
    assert there.info.status == "FINISHED" and there.info.run_name == "phenoscope"
    assert set(there.data.metrics) == {f"{m}/{layer}" for m in MEASURES for layer in run} | {"loss", "lr"}
    for measure in MEASURES:
        for layer in run:
            history = sorted(store.get_metric_history(there.info.run_id, f"{measure}/{layer}"), key=lambda m: m.step)
            assert [point.step for point in history] == [2, 4]
            np.testing.assert_array_equal([point.value for point in history], run.means[measure].sel(layer=layer))


def test_it_joins_the_run_that_is_active_and_leaves_it_open(tmp_path, store):
    with mlflow.start_run() as mine:
        recorded(tmp_path / "run", MLflow(prefix="net/"))
        assert store.get_run(mine.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("mine", 1.0)
    metrics = store.get_run(mine.info.run_id).data.metrics
    assert "net/distance/0" in metrics and metrics["mine"] == 1.0


def test_names_that_mlflow_refuses_are_written_otherwise(tmp_path, store):
    # two learning rates are "lr" and "lr/1": in the file store a file and a folder of one name
    recorded(tmp_path / "run", MLflow(experiment="names"), groups=2, **{"top@1": 0.5})
    metrics = only_run(store, "names").data.metrics
    assert metrics["lr"] == 1e-2 and metrics["lr_1"] == 2e-2 and metrics["top_1"] == 0.5


def test_more_metrics_than_mlflow_takes_at_once_all_arrive(store):
    sink = MLflow(experiment="many")
    sink(1, {f"distance/layer{i}": float(i) for i in range(1003)})
    sink.close()
    assert len(only_run(store, "many").data.metrics) == 1003


def test_the_user_s_random_numbers_are_left_alone(tmp_path, store):
    random.seed(0)
    np_state, state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    recorded(tmp_path / "run", MLflow())
    assert random.getstate() == state and np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002


def test_a_store_that_refuses_stops_only_the_sink(tmp_path, store, monkeypatch, capfd):
    monkeypatch.setattr(mlflow.MlflowClient, "create_run", lambda *a, **k: 1 / 0)
    assert len(recorded(tmp_path / "run", MLflow()).steps) == 2
    assert capfd.readouterr().err.count("sink MLflow has stopped") == 1


def test_training_is_bitwise_the_same_with_it(tmp_path, store):
    without = recorded(tmp_path / "without", None).final()  # whose data come from torch's global random numbers
    with_it = recorded(tmp_path / "with", MLflow()).final()
    assert all(torch.equal(without[name], with_it[name]) for name in without)


def test_a_missing_mlflow_is_said_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"phenoscope\[mlflow\]"):
        MLflow()
