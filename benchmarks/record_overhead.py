"""What recording costs beside what people do today, measured in one run.

    python benchmarks/record_overhead.py [--device cuda] [--rounds 15] [--json]

On CPU: VGG-16 on 32x32 images at batch 64; on CUDA: ResNet-50 on 224x224 images at batch 64 in bf16 autocast. Each
round takes one training step and then each way of looking at the convolution weights once, in a new order, so that the
machine's moods fall on all alike. Medians. The first check is that ours gives the numbers of the definition.
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


def cost_on_all_threads(model: nn.Module, optimizer: torch.optim.Optimizer, records: int = 40) -> tuple[float, float]:
    """(CPU time of all threads, wall time in the loop) of a record, in ms: the whole recorder, the writer included.

    Updates are faked by a change of the weights, and 50 ms pass between them, so that nothing else takes CPU time.
    """
    from phenoscope import Recorder

    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(model, Path(folder) / "run", every=1, threshold=TAU, final=False)
        recorder.step()
        start, wall = time.process_time(), 0.0
        for _ in range(records):
            before = time.perf_counter()
            recorder.step()
            wall += time.perf_counter() - before
            time.sleep(0.05)
        recorder._target.flush()  # type: ignore[union-attr]
        spent = time.process_time() - start
        recorder.close()
    return 1e3 * spent / records, 1e3 * wall / records


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--rounds", type=int, default=15)
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
    folder = tempfile.TemporaryDirectory()
    ways: dict[str, Callable[[], object]] = {
        "phenoscope": meter.measure,
        "obvious PyTorch": obvious,
        "torch.save of the state": lambda: torch.save(model.state_dict(), Path(folder.name) / "state.pt"),
    }
    try:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(folder.name)
        ways["TensorBoard add_histogram"] = lambda: [board.add_histogram(w.layer.name, w.weight, 0) for w in watched]
    except ImportError:
        pass
    clock = Clock(device)
    times: dict[str, list[float]] = {"training step": [], **{name: [] for name in ways}}
    for turn in range(options.rounds + 2):
        taken = clock(step)
        results = {}
        for name in random.Random(turn).sample(sorted(ways), len(ways)):
            results[name] = clock(ways[name])
        if turn >= 2:
            times["training step"].append(taken)
            for name, value in results.items():
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
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
    spent, wall = cost_on_all_threads(model, optimizer)
    medians["whole recorder, in the loop"], medians["whole recorder, CPU time of all threads"] = wall, spent
    facts = {
        "machine": torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "model": f"{'ResNet-50' if cuda else 'VGG-16'} at {size}x{size}, batch {batch}",
        "convolution weights": entries,
        "largest relative error": error,
        "extra memory over the weights": round(memory, 3),
        "ms": {name: round(value, 4) for name, value in medians.items()},
        "share of the training step": {n: round(v / medians["training step"], 5) for n, v in medians.items()},
    }
    folder.cleanup()
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if not isinstance(value, dict):
            print(f"{name:<32} {value}")
    print(f"\n{'':<42} {'ms':>10} {'of a step':>10}")
    for name, value in medians.items():
        print(f"{name:<42} {value:>10.3f} {value / medians['training step']:>10.2%}")


if __name__ == "__main__":
    main()
