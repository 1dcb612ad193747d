"""What experiment trackers take of a training: their own ways to look at weights, and ours to hand records to them.

Part of `benchmarks/record_overhead.py`. W&B works offline and everything is written under a folder that is removed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
}
warnings.filterwarnings("ignore", module=r"mlflow|wandb")

from phenoscope import Recorder  # noqa: E402

MEASURES = ("distance", "changed", "idle")
OPENING = 1.0  # seconds in which a tracker opens its files with the first record

Look = Callable[[], object]


def missing() -> list[str]:
    """What is left out, and why."""
    trackers = ("tensorboard", "wandb", "mlflow")
    out = [f"{name}: not installed" for name in trackers if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec("mlflow") and not _whole_mlflow():
        out.append("MLflow in SQLite: mlflow-skinny has no databases")
    if importlib.util.find_spec("psutil") is None:
        out.append("processor time of W&B's own process: psutil is not installed")
    return out


def looks(layers: dict[str, nn.Module], folder: Path) -> tuple[dict[str, Look], Callable[[], None]]:
    """The trackers' own ways, each to be called once an update, and what closes them.

    W&B's `watch` logs its histograms in a forward hook of the module that it watches; here it watches one that holds
    the layers and passes its input on, so that the hook is all that a call of it does. A row is sent after every call.
    MLflow has no histograms; it gets three numbers a layer, which somebody else has computed.
    """
    ways: dict[str, Look] = {}
    close = contextlib.ExitStack()
    if importlib.util.find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(folder / "board"))
        close.callback(board.close)
        ways["TensorBoard add_histogram"] = lambda: [board.add_histogram(n, m.weight, 0) for n, m in layers.items()]
    if importlib.util.find_spec("wandb"):
        import wandb

        run = close.enter_context(wandb.init(project="looks", dir=str(folder)))
        holder = Holder(layers)
        run.watch(holder, log="parameters", log_freq=1)
        one = torch.zeros(1)

        def watched() -> None:
            holder(one)
            run.log({"looked": 1})

        ways['W&B watch(log="parameters", log_freq=1)'] = watched
    means = {f"{measure}/{name}": 0.5 for name in layers for measure in MEASURES}
    for name, uri in _stores(folder / "looks").items():
        ways[f"MLflow log_metrics, {name}"] = _metrics(uri, means, close)
    return ways, close.close


class Holder(nn.Module):
    """Holds layers without using them."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers.values())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _metrics(uri: str, means: dict[str, float], close: contextlib.ExitStack) -> Look:
    import mlflow

    client = mlflow.MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("looks"), run_name="looks").info.run_id
    close.callback(client.set_terminated, run_id)
    steps = iter(range(1 << 30))

    def log() -> None:  # the public function for the active run, told where the run is
        mlflow.set_tracking_uri(uri)
        mlflow.log_metrics(means, step=next(steps), run_id=run_id)

    return log


def _whole_mlflow() -> bool:
    try:
        return bool(importlib.metadata.version("mlflow"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _stores(folder: Path) -> dict[str, str]:
    """MLflow's stores that are there, and their addresses."""
    folder.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("mlflow") is None:
        return {}
    stores = {"file store": (folder / "mlruns").as_uri()}
    return stores | ({"SQLite": f"sqlite:///{folder / 'mlflow.db'}"} if _whole_mlflow() else {})


def sinks(folder: Path) -> dict[str, Callable[[], list[Any]]]:
    """Our sinks by name, each as what makes it."""
    out: dict[str, Callable[[], list[Any]]] = {"no sink": list, "a function": lambda: [lambda step, values: None]}
    if importlib.util.find_spec("tensorboard"):
        from phenoscope.integrations.tensorboard import TensorBoard

        out["TensorBoard"] = lambda: [TensorBoard(folder / "sink-board")]
    if importlib.util.find_spec("wandb"):
        from phenoscope.integrations.wandb import WandB

        out["W&B"] = lambda: [WandB(project="sinks", dir=str(folder))]
    for name, uri in _stores(folder / "sinks").items():
        from phenoscope.integrations.mlflow import MLflow

        out[f"MLflow, {name}"] = lambda uri=uri: [MLflow(experiment="sinks", tracking_uri=uri)]  # type: ignore[misc]
    return out


def beside_training(
    model: nn.Module, step: Look, folder: Path, *, threshold: float, updates: int, rounds: int
) -> dict[str, dict[str, float]]:
    """What recording every update does to a training loop, with each sink.

    In a round, every way takes `updates` updates with a recorder of its own, which has opened its files before, in a
    new order; the training alone takes its turn, too.

    Returns:
        By sink: "step": milliseconds an update, recording included; "against alone": that over the training alone of
        the same round; "in the loop": milliseconds that the recorder holds the loop up itself. Medians over rounds.
    """
    made = sinks(folder)
    kept: dict[str, list[tuple[float, float]]] = {name: [] for name in ("training alone", *made)}
    for turn in range(rounds):
        for name in random.Random(turn).sample(sorted(kept), len(kept)):
            recorder = _opened(model, folder, made[name](), threshold) if name in made else None
            for _ in range(max(1, updates // 10)):
                step()
            kept[name].append(_block(step, recorder, updates))
            if recorder:
                recorder.close()
    alone = [whole for whole, _ in kept["training alone"]]
    return {
        name: {
            "step": statistics.median(whole for whole, _ in pairs),
            "against alone": statistics.median(whole / a for (whole, _), a in zip(pairs, alone, strict=True)),
            "in the loop": statistics.median(own for _, own in pairs),
        }
        for name, pairs in kept.items()
    }


def on_all_threads(model: nn.Module, folder: Path, *, threshold: float, records: int = 40) -> dict[str, float]:
    """Milliseconds of processor time that a record takes by sink: all threads, W&B's own process, closing included.

    No update is made, and 50 ms pass between records, so that nothing else takes processor time.
    """
    out = {}
    for name, make in sinks(folder).items():
        recorder = _opened(model, folder, make(), threshold)
        start = time.process_time() + _of_children()
        for _ in range(records):
            recorder.step()
            time.sleep(0.05)
        recorder.close()
        out[name] = 1e3 * (time.process_time() + _of_children() - start) / records
    return out


def _opened(model: nn.Module, folder: Path, listed: list[Any], threshold: float) -> Recorder:
    """A recorder after its first record, with which a tracker opens what it writes."""
    recorder = Recorder(
        model, folder / "run", every=1, threshold=threshold, final=False, overwrite=True, sinks=listed
    )  # fmt: skip
    recorder.step()
    recorder.step()
    time.sleep(OPENING + 2.0)  # the recorder's writer looks every two seconds
    return recorder


def _block(step: Look, recorder: Recorder | None, updates: int) -> tuple[float, float]:
    """Milliseconds an update by the clock, and of those in the recorder's call."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    own, start = 0.0, time.perf_counter()
    for _ in range(updates):
        step()
        if recorder is not None:
            before = time.perf_counter()
            recorder.step()
            own += time.perf_counter() - before
    synchronize()
    return 1e3 * (time.perf_counter() - start) / updates, 1e3 * own / updates


def _of_children() -> float:
    """Seconds of processor time that processes which this one started have taken."""
    try:
        import psutil
    except ImportError:
        return 0.0
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total
