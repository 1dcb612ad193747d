"""Freeze layers when they have settled: what that saves and what it costs, on scikit-learn's digits.

One training is recorded; `record.settling` says after which update each layer hardly changed, and `record.freezing`
makes a schedule of that. Then networks of other seeds are trained four ways, in turn:

    all            every layer to the end
    each settled   each layer until it settled in the recorded run
    in order       each layer until it and all before it had settled, so that backward ends early
    stopped        every layer, until the last freezing of "each settled": what mere stopping would save

Measured with the defaults on one CPU thread: "in order" saves 50 % of the time and costs 0.4 points of accuracy (a
standard error of 0.1), and "stopped" saves and costs the same: here all layers settle at nearly the same time, when
the learning rate has fallen to half, so that freezing is no better than stopping early. It can be where layers settle
one after the other; look at the schedule before you use one.

    python examples/freeze_settled.py [--epochs 20] [--seeds 5] [--threshold 0.05] [--output runs/settled]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from phenoscope import Recorder, open_run
from phenoscope.data import digits
from phenoscope.models import cnn
from phenoscope.record import freezing, settling
from phenoscope.train import accuracy

BATCH, RATE = 64, 1e-3


def network(seed: int) -> nn.Module:
    return cnn((1, 8, 8), 10, width=(16, 32, 32), pool=(1, 2, 2), generator=seed)


def fit(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    updates: int,
    seed: int,
    schedule: dict[int, list[str]] | None = None,
    stop: int | None = None,
    record: Path | None = None,
) -> float:
    """Train with Adam whose rate falls to zero along a cosine; seconds of processor time that it took.

    Args:
        schedule: {update: parameters that need no gradient from then on}; training ends when none is left.
        stop: the update to end at, the learning rate still falling as if it went on.
        record: where to record the run.
    """
    x, y = data
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    parameters = dict(model.named_parameters())
    recorder = Recorder(model, record, optimizer=optimizer, every=10, overwrite=True) if record else None
    order = torch.Generator().manual_seed(seed)
    rows = torch.empty(0, dtype=torch.int64)
    begun = time.process_time()
    for update in range(updates if stop is None else stop):
        for name in (schedule or {}).get(update, ()):
            parameters[name].requires_grad_(False).grad = None
        if not any(parameter.requires_grad for parameter in parameters.values()):
            break
        if len(rows) < BATCH:
            rows = torch.randperm(len(x), generator=order)
        batch, rows = rows[:BATCH], rows[BATCH:]
        optimizer.zero_grad()
        loss = cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        rate.step()
        if recorder:
            recorder.log(loss=loss)
    spent = time.process_time() - begun
    if recorder:
        recorder.close()
    return spent


def main(arguments: list[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    """Record, find the schedule, train each way, print; {way: (seconds, accuracy) of every seed}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--output", type=Path, default=Path("runs/settled"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # processor time is then the training's own, whatever else the machine does
    split = digits(generator=0)
    updates = options.epochs * (len(split.train[0]) // BATCH)

    model = network(0)
    spent = fit(model, split.train, updates=updates, seed=0, record=options.output)
    run = open_run(options.output)
    settled = settling(run, threshold=options.threshold)
    print(
        f"Recorded {updates} updates in {spent:.1f} CPU s: "
        f"{accuracy(model, split.test):.2%} of the held-out digits right"
    )
    for layer in run:
        at = float(settled["settled"].sel(layer=layer))
        rate = float(settled["rate"].sel(layer=layer))
        said = "did not settle" if at != at else f"settled at update {at:.0f}, at {rate:.0%} of the learning rate"
        print(f"  {layer}: {said}")

    each, in_order = (freezing(run, settled, in_order=order) for order in (False, True))
    ways = {
        "all": {},
        "each settled": {"schedule": each},
        "in order": {"schedule": in_order},
        "stopped": {"stop": max(each, default=updates)},
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    fit(network(0), split.train, updates=min(updates, 30), seed=0)  # so that none of them pays for warming up
    for seed in range(1, options.seeds + 1):
        for way, settings in ways.items():
            model = network(seed)
            spent = fit(model, split.train, updates=updates, seed=seed, **settings)
            found[way].append((spent, accuracy(model, split.test)))

    print(f"\n{options.seeds} further seeds, one update of {BATCH} digits at a time; differences are to 'all', by seed")
    print(f"{'way':14}{'CPU s':>9}{'time saved':>12}{'accuracy':>11}{'difference in points':>24}")
    for way, results in found.items():
        seconds, right = (mean(values) for values in zip(*results, strict=True))
        saved = 1 - seconds / mean(spent for spent, _ in found["all"])
        apart = [100 * (mine - its) for (_, mine), (_, its) in zip(results, found["all"], strict=True)]
        error = f" ± {stdev(apart) / len(apart) ** 0.5:.2f} s.e." if len(apart) > 1 else ""
        print(f"{way:14}{seconds:9.2f}{saved:12.1%}{right:11.2%}{f'{mean(apart):+.2f}{error}':>24}")
    print("The recorded training is not counted: a schedule pays only where many trainings like it follow.")
    return found


if __name__ == "__main__":
    main()
