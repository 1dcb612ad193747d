"""What recording costs beside what people do today, measured in one run.

    python benchmarks/record_overhead.py [--device cuda] [--rounds 15] [--sink-rounds 5] [--json]

On CPU: VGG-16 on 32x32 images at batch 64; on CUDA: ResNet-50 on 224x224 images at batch 64 in bf16 autocast. Each
round takes one training step and then each way of looking at the convolution weights once, in a new order, so that the
machine's moods fall on all alike: ours, the obvious one, and those of the trackers that are installed. Then the whole
recorder at every update with each of its sinks, beside that training and beside one of a network so small that an
update takes a fraction of a millisecond, where nothing hides. Medians. The first check is that ours gives the numbers
of the definition.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import trackers
from phenoscope import models
from phenoscope.record.evolution import compare
from phenoscope.record.layers import find_layers
from phenoscope.record.passes.meter import Meter, numbered
from phenoscope.record.passes.watched import Watched

TAU = 2e-4


def watch(model: nn.Module) -> list[Watched]:
    found = [each for each in find_layers(model)[0] if each.layer.kind.startswith("Conv")]
    return numbered(Watched(each.layer, each.weight, TAU) for each in found)


class Clock:
    """Milliseconds that an action takes: by device events on CUDA, else by the wall."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def __call__(self, action: Callable[[], object]) -> float:
        if not self.cuda:
            start = time.perf_counter()
            action()
            return 1e3 * (time.perf_counter() - start)
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        action()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)


class Obvious:
    """The measures as one would write them: a difference, its square, a comparison, a copy, layer by layer."""

    def __init__(self, watched: list[Watched]) -> None:
        self.watched = watched
        self.before = [w.weight.detach().clone() for w in watched]

    def __call__(self) -> list[torch.Tensor]:
        out = []
        for w, before in zip(self.watched, self.before, strict=True):
            difference = w.weight.detach() - before
            moved = difference.abs() > TAU
            out += [
                difference.pow(2).sum((1, 2, 3)),
                moved.float().mean((1, 2, 3)),
                (~moved.flatten(2).any(2)).float().mean(1),
            ]
            before.copy_(w.weight.detach())
        return out


def check(model: nn.Module, watched: list[Watched], step: Callable[[], None]) -> float:
    """Largest relative error of the distances against the definition after a real update; the counts must be equal."""
    meter = Meter(watched)
    before = [w.layer.blocks(w.weight.detach()).clone() for w in watched]
    step()
    numbers, worst = meter.measure()(), 0.0
    for w, b in zip(watched, before, strict=True):
        distance, changed, moved = (v.cpu().numpy() for v in compare(b, w.layer.blocks(w.weight.detach()), TAU))
        place = slice(w.start, w.start + len(w))
        assert (numbers.changed[place] == changed).all(), w.layer.name
        assert (numbers.moved[place] == moved).all(), w.layer.name
        worst = max(worst, float(np.max(np.abs(numbers.distance[place] - distance) / np.maximum(distance, 1e-300))))
    assert worst < 1e-6, worst
    return worst


def extra_memory(watched: list[Watched], device: str) -> float:
    """Bytes that measuring adds, its largest temporaries included, over those of the weights."""
    weights = sum(w.weight.nbytes for w in watched)

    def used() -> int:
        if device == "cuda":
            return torch.cuda.max_memory_allocated()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    small = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1)).to(device)
    Meter(watch(small)).measure()()  # compiled code is not counted
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve the copies
    start = torch.cuda.memory_allocated() if device == "cuda" else used()
    meter = Meter(watched)
    for _ in range(3):
        meter.measure()()
    return (used() - start) / weights


def small(device: str) -> tuple[nn.Module, Callable[[], None]]:
    """A network whose update takes next to no time, and its update."""
    model = models.mlp((64,), 10, width=(64, 64, 64), generator=0).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=TAU)
    x, y = torch.randn(64, 64, device=device), torch.randint(10, (64,), device=device)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--sink-rounds", type=int, default=5)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    device, cuda = options.device, options.device == "cuda"
    torch.manual_seed(0)
    size, batch = (224, 64) if cuda else (32, 64)
    model = (models.resnet if cuda else models.vgg)((3, size, size), 10, generator=0).to(device)
    if cuda:
        model = model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=TAU)
    x = torch.randn(batch, 3, size, size, device=device)
    y = torch.randint(10, (batch,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    watched = watch(model)
    entries = sum(w.weight.numel() for w in watched)
    step()
    error = check(model, watched, step)
    memory = extra_memory(watched, device)
    meter, obvious = Meter(watched), Obvious(watched)
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    folder = Path(temporary.name)
    others, close = trackers.looks({w.layer.name: model.get_submodule(w.layer.name) for w in watched}, folder)
    ways: dict[str, Callable[[], object]] = {
        "phenoscope": meter.measure,
        "obvious PyTorch": obvious,
        "torch.save of the state": lambda: torch.save(model.state_dict(), folder / "state.pt"),
        **others,
    }
    clock = Clock(device)
    times: dict[str, list[float]] = {"training step": [], **{name: [] for name in ways}}
    busy: dict[str, list[float]] = {name: [] for name in times}
    for turn in range(options.rounds + 2):
        for name in ["training step", *random.Random(turn).sample(sorted(ways), len(ways))]:
            start = time.process_time()
            taken = clock(ways.get(name, step))
            if turn >= 2:  # the first two warm up
                times[name].append(taken)
                busy[name].append(1e3 * (time.process_time() - start))
    close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    processor = {name: statistics.median(values) for name, values in busy.items()}
    if cuda:  # many in a row, as the GPU sees it without the gaps that single launches leave
        row = [clock(lambda: [meter.measure() for _ in range(20)]) / 20 for _ in range(15)]
        medians["phenoscope, 20 in a row"] = statistics.median(row)
        start = time.perf_counter()
        for _ in range(200):
            meter.measure()
        medians["phenoscope, host side of a call"] = 5 * (time.perf_counter() - start)
        torch.cuda.synchronize()
        copy = torch.empty(entries, device=device)
        other = torch.randn(entries, device=device)
        floor = [clock(lambda: [copy.add_(other) for _ in range(20)]) / 20 for _ in range(15)]
        medians["12 bytes a weight by add_ (the floor)"] = statistics.median(floor)
    little, little_step = small(device)
    beside = {
        "large": trackers.beside_training(
            model, step, folder, threshold=TAU, updates=20 if cuda else 5, rounds=options.sink_rounds
        ),
        "small": trackers.beside_training(
            little, little_step, folder, threshold=TAU, updates=2000, rounds=options.sink_rounds
        ),
    }
    spent = trackers.on_all_threads(model, folder, threshold=TAU)
    facts = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load average": round(os.getloadavg()[0], 1),
        "left out": trackers.missing(),
        "model": f"{'ResNet-50' if cuda else 'VGG-16'} at {size}x{size}, batch {batch}",
        "small model": "perceptron 64-64-64-64-10, batch 64",
        "convolution weights": entries,
        "largest relative error": error,
        "extra memory over the weights": round(memory, 3),
        "ms": {name: round(value, 4) for name, value in medians.items()},
        "share of the training step": {n: round(v / medians["training step"], 5) for n, v in medians.items()},
        "processor ms": {name: round(value, 4) for name, value in processor.items()},
        "sinks": {
            kind: {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()}
            for kind, rows in beside.items()
        },
        "processor ms a record": {name: round(value, 4) for name, value in spent.items()},
    }
    temporary.cleanup()
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if not isinstance(value, dict):
            print(f"{name:<32} {value}")
    print(f"\n{'once an update':<42} {'ms':>10} {'of a step':>10} {'processor ms':>13}")
    for name, value in medians.items():
        own = f"{processor[name]:>13.3f}" if name in processor else ""
        print(f"{name:<42} {value:>10.3f} {value / medians['training step']:>10.2%} {own}")
    for kind, rows in beside.items():
        title = f"every update recorded, {kind} model"
        print(f"\n{title:<42} {'ms a step':>10} {'of alone':>10} {'in the loop':>13}")
        for name, row in rows.items():
            print(f"{name:<42} {row['step']:>10.3f} {row['against alone']:>10.2%} {row['in the loop']:>13.4f}")
    print(f"\n{'processor ms a record, all threads':<42}")
    for name, value in spent.items():
        print(f"{name:<42} {value:>10.3f}")


if __name__ == "__main__":
    main()
