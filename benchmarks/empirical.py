"""What the trainings of three studies cost: one plain PyTorch loop after another, and `train.fleet`.

    python benchmarks/empirical.py [--threads 1] [--rounds 5] [--studies lottery-ticket ...] [--device cuda] [--json]

The networks, data, optimizers, schedules, masks and batch sizes are those of the studies' own benches at the default
preset: `double-descent` by width, the controls of `lottery-ticket`, and `generalization-measures` by width, depth and
batch size. What is timed is a share of the steps of their trainings, without what the studies measure on top; the loop
trains three of the networks. In each round both take their turn, in a new order, so that the machine's moods fall on
both alike. Microseconds a network-step (one update of one network), by the clock and of processor time, medians over
the rounds; drawing the order, gathering the batch, the losses kept and the copying of networks are included. Studies
work in one thread a process, which is the default here. On a machine that others use too, trust processor time.

First it is checked that both give the same networks: what a member's weights are off by after the timed steps,
relative to how far they have moved, may be a hundredth.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenoscope import data, prune, train
from phenoscope.lab import study
from phenoscope.lab.map import Lab
from phenoscope.measure.sweeps.bias_variance import squared_error
from phenoscope.measure.sweeps.double_descent import drawn
from phenoscope.studies.benches import fitted_nets, tickets, width_sweep
from phenoscope.studies.empirical.double_descent import NOISE

IN_A_LOOP = 3  # networks that the loop trains
TOLERANCE = 1e-2  # single precision, sums in another order, a few hundred steps


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Trainings of one shape.

    Attributes:
        study, name: whose they are, and which.
        networks: before training.
        parts: the examples and labels of each, for the loop.
        fleet: the same and everything else that differs by member, as `train.fleet` takes it.
        optimizers: what makes each member's optimizer.
        optimizer: what makes one, as `train.fleet` takes it.
        loss_fn: from outputs and labels to a mean.
        batch: examples in a batch, `None` for all.
        schedule: of the learning rate.
        steps: of the whole training.
        timed: of these.
        masks: of each member, if any.
    """

    study: str
    name: str
    networks: list[nn.Module]
    parts: list[tuple[Tensor, Tensor]]
    fleet: dict[str, Any]
    optimizers: list[Callable[..., torch.optim.Optimizer]]
    optimizer: Callable[..., torch.optim.Optimizer]
    loss_fn: Callable[..., Tensor]
    batch: int | None
    schedule: Callable[[int], float]
    steps: int
    timed: int
    masks: Sequence[Mapping[str, Tensor]] | None = None


def double_descent(lab: Lab) -> Iterator[Case]:
    """Every seed with wrong and with right labels in one fleet, a width after another; all examples at every step."""
    settings = study("double-descent").values("default")
    split = data.load(settings["dataset"], generator=lab.seed("split")).to(lab.device)
    (x, y), n, steps = split.train, settings["samples"], settings["steps"]
    noises, seeds = (NOISE, 0.0), list(range(settings["seeds"]))
    rows, labels = (each.to(lab.device) for each in drawn(y, classes=10, noises=noises, seeds=seeds))
    rows = rows[:, :n]
    for width in settings["widths"]:
        networks = [
            train.build(settings["model"], shape=x.shape[1:], num_classes=10, width=width, generator=seed).to(
                lab.device
            )
            for seed in seeds * len(noises)
        ]
        yield Case(
            "double-descent", f"width {width}", networks,
            [(x[own], values[own]) for own, values in zip(rows, labels, strict=True)],
            {"data": (x, y), "labels": labels, "rows": rows}, [width_sweep.ADAM] * len(networks), width_sweep.ADAM,
            squared_error, None, train.linear_decay(steps), steps, 100 if width <= 64 else 40,
        )  # fmt: skip


def lottery_ticket(lab: Lab) -> Iterator[Case]:
    """Three networks of the density of each round that has controls, with masks of their own."""
    settings = study("lottery-ticket").values("default")
    split, make = tickets.setting(lab, model=settings["model"], dataset=settings["dataset"], seed=0)
    densities = [(1 - settings["rate"]) ** number for number in settings["control_rounds"] for _ in range(3)]
    networks = [make(generator=seed).to(lab.device) for seed in range(len(densities))]
    masks = [prune.one_shot(network, density=d) for network, d in zip(networks, densities, strict=True)]
    recipe = tickets.training(steps=settings["steps"])
    yield Case(
        "lottery-ticket", "controls", networks, [split.train] * len(networks), {"data": split.train, "masks": masks},
        [recipe["optimizer"]] * len(networks), recipe["optimizer"], functional.cross_entropy, recipe["batch_size"],
        recipe["schedule"], recipe["steps"], 120, masks,
    )  # fmt: skip


def generalization_measures(lab: Lab) -> Iterator[Case]:
    """Every rate, decay and seed in one fleet, a shape and batch size after another."""
    settings = study("generalization-measures").values("default")
    seeds, steps = range(settings["seeds"]), settings["steps"]
    found = [
        fitted_nets.setting(lab, dataset=settings["dataset"], noise=settings["noise"], seed=seed) for seed in seeds
    ]
    members = list(itertools.product(settings["rates"], settings["decays"], seeds))
    parts = [found[seed][0] for _, _, seed in members]
    optimizers = [functools.partial(fitted_nets.SGD, lr=rate, weight_decay=decay) for rate, decay, _ in members]
    rates = {"lr": [rate for rate, _, _ in members], "weight_decay": [decay for _, decay, _ in members]}
    for width, depth, batch in itertools.product(settings["widths"], settings["depths"], settings["batches"]):
        make = functools.partial(
            train.build, settings["model"], shape=parts[0][0].shape[1:], num_classes=found[0][2], width=(width,) * depth
        )
        yield Case(
            "generalization-measures", f"width {width}, depth {depth}, batch {batch}",
            [make(generator=seed).to(lab.device) for seed in range(len(members))], parts, {"data": parts} | rates,
            optimizers, fitted_nets.SGD, functional.cross_entropy, batch, train.linear_decay(steps), steps,
            60 if batch < 64 else 30,
        )  # fmt: skip


STUDIES = {
    "double-descent": double_descent,
    "lottery-ticket": lottery_ticket,
    "generalization-measures": generalization_measures,
}


def one(case: Case, member: int) -> nn.Module:
    """The loop that everyone writes."""
    model, (x, y) = copy.deepcopy(case.networks[member]), case.parts[member]
    optimizer = case.optimizers[member](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, case.schedule)
    held = [] if case.masks is None else [(model.get_parameter(name), m) for name, m in case.masks[member].items()]
    with torch.no_grad():
        for parameter, mask in held:
            parameter.mul_(mask)
    generator = torch.Generator().manual_seed(member)
    losses: list[Tensor] = []
    while True:
        if case.batch is None:
            batches: Any = [slice(None)]
        else:
            batches = torch.randperm(len(x), generator=generator).to(x.device).split(case.batch)
        for rows in batches:
            optimizer.zero_grad()
            loss = case.loss_fn(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for parameter, mask in held:
                    parameter.mul_(mask)
            scheduler.step()
            losses.append(loss.detach())
            if len(losses) == case.timed:
                return model


def loop(case: Case) -> int:
    for member in range(IN_A_LOOP):
        one(case, member)
    return IN_A_LOOP * case.timed


def together(case: Case) -> train.Fleet:
    settings = dict(case.fleet)
    return train.fleet(
        case.networks, settings.pop("data"), steps=case.timed, optimizer=case.optimizer, loss_fn=case.loss_fn,
        batch_size=case.batch, schedule=case.schedule, generator=list(range(len(case.networks))), **settings,
    )  # fmt: skip


def fleet(case: Case) -> int:
    together(case)
    return len(case.networks) * case.timed


@torch.no_grad()
def apart(one: nn.Module, other: nn.Module) -> float:
    return float(sum((a - b).square().sum() for a, b in zip(one.parameters(), other.parameters(), strict=True)) ** 0.5)


def difference(case: Case) -> float:
    """How far the weights of both are apart, relative to how far they moved: the larger of the first and last."""
    trained, worst = together(case), 0.0
    for member in {0, len(case.networks) - 1}:
        alone = one(case, member)
        worst = max(worst, apart(trained[member], alone) / apart(alone, case.networks[member]))
    return worst


def measured(case: Case, device: str, rounds: int) -> dict[str, Any]:
    """Both contenders' times a network-step, and how many times as fast the fleet is."""
    off = difference(case)
    if not off < TOLERANCE:
        raise SystemExit(f"{case.study}, {case.name}: loop and fleet give other networks, off by {off:.2g}")
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    contenders = {"loop": loop, "fleet": fleet}
    times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in contenders} for kind in KINDS}
    for _ in range(rounds):
        for name in random.sample(list(contenders), len(contenders)):
            synchronize()
            starts = [read() for read in KINDS.values()]
            taken = contenders[name](case)
            synchronize()
            for (kind, read), start in zip(KINDS.items(), starts, strict=True):
                times[kind][name].append(1e6 * (read() - start) / taken)
    row: dict[str, Any] = {"study": case.study, "case": case.name, "members": len(case.networks), "difference": off}
    for kind, found in times.items():
        medians = {name: statistics.median(values) for name, values in found.items()}
        pairs = zip(found["loop"], found["fleet"], strict=True)
        row[kind] = medians | {"ratio": statistics.median(a / b for a, b in pairs)}
    row["updates"] = case.steps * len(case.networks)
    return row


KINDS = {"clock": time.perf_counter, "processor": time.process_time}


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All trainings of a study, every case to its last step: seconds of both, and their ratio."""
    found: dict[str, Any] = {"study": rows[0]["study"]}
    for kind in KINDS:
        seconds = {name: sum(1e-6 * row[kind][name] * row["updates"] for row in rows) for name in ("loop", "fleet")}
        found[kind] = seconds | {"ratio": seconds["loop"] / seconds["fleet"]}
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES), metavar="STUDY")
    parser.add_argument("--cases", nargs="+", default=[""], help="only cases whose name contains one of these")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    lab, load, rows = Lab(0, options.device), [os.getloadavg()[0]], []
    for name in options.studies:
        for case in STUDIES[name](lab):
            if any(part in case.name for part in options.cases):
                rows.append(measured(case, options.device, options.rounds))
                load.append(os.getloadavg()[0])
    if not rows:
        raise SystemExit(f"no case's name contains {' or '.join(options.cases)}")
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "load average from to": [min(load), max(load)],
        "rows": rows,
        "studies": [summed(list(some)) for _, some in itertools.groupby(rows, lambda row: row["study"])],
    }
    print(json.dumps(result, indent=2) if options.json else said(result))
    return result


def said(result: dict[str, Any]) -> str:
    """As a table."""
    lines = [f"{name}: {value}" for name, value in result.items() if name not in ("rows", "studies")]
    heads = "".join(f"{name:>9}" for name in ("loop", "fleet", "ratio"))
    lines += ["", f"{'microseconds a network-step':54}members" + "".join(f"   {kind:10}" + heads for kind in KINDS)]
    for row in result["rows"]:
        cells = ["".join(f"{row[kind][name]:9.1f}" for name in ("loop", "fleet", "ratio")) for kind in KINDS]
        lines.append(
            f"{row['study'] + ', ' + row['case']:54}{row['members']:7}" + "".join(f"{'':13}{cell}" for cell in cells)
        )
    lines += ["", f"{'seconds, all steps of the cases above':61}" + "".join(f"   {kind:10}" + heads for kind in KINDS)]
    for row in result["studies"]:
        cells = ["".join(f"{row[kind][name]:9.1f}" for name in ("loop", "fleet", "ratio")) for kind in KINDS]
        lines.append(f"{row['study']:61}" + "".join(f"{'':13}{cell}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
