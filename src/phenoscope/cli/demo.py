"""`phenoscope demo`: the paper's experiment on real digits, small enough for two CPU cores."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr
from torch import nn

from .. import data, models, train
from ..core.errors import InputError
from ..lab.progress import progress
from ..record import Recorder, Run, open_run
from ..record.store import is_run, write_json
from .ablation import ablation, facts
from .findings import findings
from .objects import checked_device
from .tables import ablation_table, layer_table, slimming_table

RATE, BATCH, EVERY = 2e-4, 64, 10  # as in the paper


class _Network(NamedTuple):
    name: str
    title: str
    build: Callable[..., nn.Module]
    observed: tuple[str, ...]
    epochs: int


_NETWORKS = [
    _Network("vgg16", "VGG-16", models.vgg, tuple(models.VGG16_OBSERVED), 12),
    _Network("resnet50", "ResNet-50 v2", models.resnet, tuple(models.RESNET50_OBSERVED), 8),
]


def demo(
    output: Path, *, full_width: bool, epochs: int | None, repeats: int, device: str, seed: int, json: bool
) -> None:
    """Train, record, ablate, slim and report both networks; print what was measured beside what the paper found."""
    from ..report import run_report

    where = checked_device(device)
    console = Console(quiet=json)
    start = time.perf_counter()
    digits = data.digits(32, 3, generator=seed).to(where)
    held_out = digits.test
    width = 1.0 if full_width else 0.25
    console.print(
        f"{len(digits.train[1])} real digits to learn from, {len(held_out[1])} held out, 32x32 pixels; "
        f"Adam at {RATE:g}, batches of {BATCH}, a record every {EVERY} updates; "
        f"{'full' if full_width else 'a quarter of the'} width, seed {seed}",
        highlight=False,
    )
    runs: dict[str, Run] = {}
    summary: dict[str, Any] = {"seed": seed, "width": width, "device": str(where), "runs": {}}
    for network in _NETWORKS:
        model = network.build((3, 32, 32), 10, width=width, generator=seed).to(where)
        path = output / network.name
        spent = _train(network, model, digits.train, path, epochs or network.epochs, seed, json)
        run = open_run(path)
        accuracy = train.accuracy(model, held_out)
        np.save(path / "image.npy", held_out[0][0].cpu().numpy())
        write_json(
            path / "summary.json",
            {
                "accuracy": accuracy,
                "notes": [
                    f"Trained for {spent:.0f} s on scikit-learn's digits; "
                    f"accuracy on {len(held_out[1])} held-out images."
                ],
            },
        )
        tables = ablation(
            run,
            model,
            held_out,
            epsilon=0.05,
            share=0.25,
            share_layers=list(network.observed),
            repeats=repeats,
            seed=seed,
            title=network.title,
            quiet=json,
        )
        runs[network.name] = run
        summary["runs"][network.name] = {
            "path": str(path),
            "parameters": sum(p.numel() for p in model.parameters()),
            "updates": int(run.steps[-1]),
            "training_seconds": round(spent, 1),
            "accuracy": accuracy,
            "layers": _layers(run, network.observed),
            "depth_correlation": _depth_correlation(run, network.observed),
            **facts(tables),
        }
        console.print()
        console.print(
            f"{network.title}: {accuracy:.2%} of the held-out digits right after {run.steps[-1]} updates",
            highlight=False,
        )
        console.print(
            layer_table(run, list(network.observed), "The paper's five layers: means over the recorded steps")
        )
        for table in ("redundant", "least_evolved"):
            console.print(ablation_table(tables[table]))
        console.print(slimming_table(tables["slimming"]))
    index = run_report(list(runs.values()), output / "report")
    summary |= {
        "findings": findings(summary["runs"]),
        "seconds": round(time.perf_counter() - start, 1),
        "report": str(index),
    }
    if json:
        print(json_module.dumps(summary, indent=1))
        return
    console.print("\nBeside the paper (one run of small networks on digits: a look, not a test)")
    for finding in summary["findings"]:
        console.print(
            f"- The paper: {finding['paper']}\n  Here: {finding['here']}", highlight=False, markup=False, soft_wrap=True
        )
    console.print(
        f"\nThe report: {index}   ({summary['seconds']:.0f} s in all)", highlight=False, markup=False, soft_wrap=True
    )


def _train(network: _Network, model: nn.Module, part: Any, path: Path, epochs: int, seed: int, quiet: bool) -> float:
    """Train and record; seconds that it took."""
    if path.exists() and not is_run(path) and any(path.iterdir()):
        raise InputError(f"{path} holds something else than a run: choose another --output")
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    start = time.perf_counter()
    with (
        Recorder(model, path, optimizer=optimizer, every=EVERY, overwrite=True) as recorder,
        progress(f"Training {network.title}", quiet) as advance,
    ):
        train.fit(
            model,
            part,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=BATCH,
            generator=seed,
            log=recorder.log,
            progress=advance,
        )
    return time.perf_counter() - start


def _layers(run: Run, observed: tuple[str, ...]) -> list[dict[str, Any]]:
    means = run.means.mean("step")
    names = ("changed", "idle", "distance", "distance_per_weight")
    return [{"layer": layer, **{name: float(means[name].sel(layer=layer)) for name in names}} for layer in observed]


def _depth_correlation(run: Run, observed: tuple[str, ...]) -> dict[str, float]:
    """Spearman correlation of depth with the time-mean of each measure, over the five observed layers."""
    means = run.means.mean("step").sel(layer=list(observed))
    return {
        name: float(spearmanr(np.arange(len(observed)), means[name]).statistic)
        for name in ("changed", "distance_per_weight", "distance")
    }
