"""What it costs to follow a training: each running measure that `train.Watch` is used for, beside an update.

    python benchmarks/watch.py [--rounds 15] [--threads 1] [--device cuda] [--json]

A perceptron 40-100-100-10 on 4,000 signals of MNIST-1D, batches of 64. Every round makes some updates and then one look
of each kind, in a new order. Medians, in milliseconds and in updates. A measure looked at every k updates adds its cost
divided by k; none is on unless it is asked for. The first check is that looking changes nothing: a training with all
observers ends at the same bits as one without.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenoscope import data, landscape, measure, models, train

EXAMPLES = 256  # that the measures of gradients are taken on
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def observers(start: nn.Module, part: tuple[Tensor, Tensor]) -> dict[str, Callable[[nn.Module], Any]]:
    """Every measure as a function of the standing network."""
    some = part[0][:EXAMPLES], part[1][:EXAMPLES]
    first = {name: value.clone() for name, value in start.state_dict().items()}

    def motion(model: nn.Module) -> Tensor:
        found = measure.weight_motion({0: first, 1: model.state_dict()}).isel(step=-1)
        return torch.tensor([float(found[name].sel(layer="all")) for name in ("signs_changed", "from_start", "cosine")])

    def plane(model: nn.Module) -> Any:
        return measure.information_plane(model, *part, layers=nn.ReLU).input.values

    return {
        "accuracy on all data": lambda model: train.accuracy(model, part),
        "sign changes, distance, cosine (weight_motion)": motion,
        "signal and noise of the gradient (gradient_snr)": lambda model: (
            measure.gradient_snr(model, functional.cross_entropy, some, batch_size=64).snr.values
        ),
        "gradient signal-to-noise ratio (gsnr)": lambda model: measure.gsnr(
            model, functional.cross_entropy, some
        ).average(),
        "trace of the Fisher information (fim_trace)": lambda model: landscape.fim_trace(model, some, generator=0),
        "information plane of the hidden layers, all data": plane,
        "largest eigenvalue of the Hessian (top_eigenvalues)": lambda model: landscape.top_eigenvalues(
            model, functional.cross_entropy, some, generator=0
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    part = tuple(each.to(device) for each in data.mnist1d(generator=0).train)
    model = models.mlp(part[0].shape[1:], 10, width=(100, 100), generator=0).to(device)
    looks = observers(model, part)
    check(model, part, looks)
    optimizer = SGD(model.parameters())
    order = torch.Generator().manual_seed(0)

    def update() -> None:
        rows = torch.randint(len(part[1]), (64,), generator=order).to(device)
        optimizer.zero_grad()
        functional.cross_entropy(model(part[0][rows]), part[1][rows]).backward()
        optimizer.step()

    times: dict[str, list[float]] = {name: [] for name in ("update", *looks)}
    for turn in range(options.rounds + 2):
        taken = {"update": clock(lambda: [update() for _ in range(20)], device) / 20}
        for name in random.Random(turn).sample(sorted(looks), len(looks)):
            taken[name] = clock(functools.partial(look, looks[name], model), device)
        if turn >= 2:  # the first rounds load and compile
            for name, value in taken.items():
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    facts = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "examples": EXAMPLES,
        "ms": {name: round(value, 4) for name, value in medians.items()},
        "updates": {name: round(value / medians["update"], 2) for name, value in medians.items() if name != "update"},
    }
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{'':56}{'ms':>10}{'updates':>10}")
    for name, value in medians.items():
        print(f"{name:56}{value:10.3f}{value / medians['update']:10.1f}")


def look(observe: Callable[[nn.Module], Any], model: nn.Module) -> None:
    """As a watch asks."""
    model.eval()
    with torch.no_grad():
        observe(model)
    model.train()


def clock(action: Callable[[], object], device: torch.device) -> float:
    """Milliseconds."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return 1e3 * (time.perf_counter() - start)


def check(model: nn.Module, part: Any, looks: dict[str, Callable[[nn.Module], Any]]) -> None:
    """Looking changes nothing."""
    ends = []
    for watch in (None, train.Watch(looks, at=5)):
        network = train.build(models.mlp, shape=part[0].shape[1:], num_classes=10, width=(100, 100), generator=1)
        train.fit(network.to(part[0].device), part, steps=10, optimizer=SGD, watch=watch, generator=2)
        ends.append(network.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


if __name__ == "__main__":
    main()
