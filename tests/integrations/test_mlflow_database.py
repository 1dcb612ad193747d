"""A database of MLflow, read back, holds what the run holds. Databases come with the whole of mlflow only."""

import importlib.metadata
import os

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from phenoscope import Recorder, open_run
from phenoscope.integrations.mlflow import MLflow
from phenoscope.record.run import MEASURES

try:
    importlib.metadata.version("mlflow")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("mlflow-skinny has no databases; `pip install mlflow` has", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A database with its tables, which take seconds to make."""
    import mlflow

    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    client.search_experiments()
    return uri, client


def recorded(path, sink, steps=4, every=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with Recorder(model, path, optimizer=optimizer, every=every, threshold=5e-3, sinks=[sink]) as recorder:
        for _ in range(steps):
            loss = model(torch.randn(8, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
    return open_run(path)


def test_a_run_of_its_own_holds_the_layer_means_and_is_ended(tmp_path, store):
    uri, client = store
    run = recorded(tmp_path / "run", MLflow(experiment="digits", tracking_uri=uri), steps=300, every=1)
    (there,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert there.info.status == "FINISHED"
    assert set(there.data.metrics) == {f"{m}/{layer}" for m in MEASURES for layer in run} | {"loss", "lr"}
    for measure in MEASURES:
        for layer in run:
            history = sorted(client.get_metric_history(there.info.run_id, f"{measure}/{layer}"), key=lambda m: m.step)
            assert [point.step for point in history] == list(range(1, 301))
            np.testing.assert_array_equal([point.value for point in history], run.means[measure].sel(layer=layer))


def test_it_joins_a_run_of_the_user_and_leaves_it_open(tmp_path, store):
    uri, client = store
    mine = client.create_run(client.create_experiment("mine"))
    recorded(tmp_path / "run", MLflow(run_id=mine.info.run_id, tracking_uri=uri, prefix="net/"))
    client.log_metric(mine.info.run_id, "mine", 1.0)
    there = client.get_run(mine.info.run_id)
    assert there.info.status == "RUNNING"
    assert "net/distance/0" in there.data.metrics and there.data.metrics["mine"] == 1.0


def test_a_nan_arrives_as_one(store):
    uri, client = store
    sink = MLflow(experiment="nan", tracking_uri=uri)
    sink.many([(1, {"loss": 0.5}), (2, {"loss": float("nan")}), (3, {"loss": float("inf")})])
    sink.close()
    (there,) = client.search_runs([client.get_experiment_by_name("nan").experiment_id])
    values = [point.value for point in client.get_metric_history(there.info.run_id, "loss")]
    assert values[0] == 0.5 and np.isnan(values[1]) and values[2] > 1e300
