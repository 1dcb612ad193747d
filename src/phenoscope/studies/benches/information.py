"""The bench of the information plane: all twelve-bit inputs, networks 12-10-7-5-4-3-2, snapshots on a log scale."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, measure, models, train

mlp = functools.partial(models.mlp, width=(10, 7, 5, 4, 3))
ADAM = functools.partial(torch.optim.Adam, lr=2e-3)
BATCH = 256
UNITS = {"tanh": nn.Tanh, "relu": nn.ReLU}
INITS = {"tanh": "lecun", "relu": "he"}  # variances 1 / fan-in and 2 / fan-in, biases of zero
OUTPUT = "softmax"  # the name of the last layer


def looks(steps: int, count: int) -> list[int]:
    """Step 0 and different steps on a log scale, the last of them `steps`: `count` in all, where there are so many."""
    wanted = min(count, steps + 1) - 1
    for tried in range(wanted, 100 * count):
        found = np.unique(np.round(np.geomspace(1, steps, tried)).astype(int))
        if len(found) >= wanted:
            return [0, *found.tolist()]
    return list(range(steps + 1))


def trained(
    lab, *, model, dataset, activation: str, steps: int, recordings: int, seeds: int,
    optimizer: Any = ADAM, batch: int | None = BATCH,
) -> tuple[train.Fleet, list[data.Split]]:  # fmt: skip
    """Networks with snapshots, and the data of each; what a seed draws is the same for all settings."""
    splits = [data.load(dataset, generator=lab.seed("split", seed)).to(lab.device) for seed in range(seeds)]
    shape, classes = tuple(splits[0].train[0].shape[1:]), len(splits[0].classes)
    own = [lab.seed("network", seed) for seed in range(seeds)]
    networks = [
        train.build(
            model, shape=shape, num_classes=classes, activation=activation, init=INITS[activation], generator=seed
        )
        for seed in own
    ]
    fleet = train.fleet(
        [network.to(lab.device) for network in networks], [split.train for split in splits], steps=steps,
        optimizer=optimizer, batch_size=batch, generator=own, states=train.States(at=looks(steps, recordings)),
    )  # fmt: skip
    return fleet, splits


def inputs(split: data.Split) -> tuple[Tensor, Tensor]:
    """All inputs there are, and their labels: as probabilities where they are known."""
    if hasattr(split, "probabilities"):
        return split.inputs, split.probabilities  # type: ignore[attr-defined]
    parts = [part for part in (split.train, split.validation, split.test) if part is not None]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def plane(fleet: train.Fleet, splits: list[data.Split], *, units: type[nn.Module], **how: Any) -> xr.Dataset:
    """The information plane of every network, over seed, step and layer: hidden layers in order, then the softmax.

    With `layers` only these, a list of their names, with `steps` only these recordings; other settings are those of
    `measure.information_plane`.
    """
    hidden = [name for name, module in fleet.template.named_modules() if isinstance(module, units)]
    chosen = how.pop("layers", [*hidden, OUTPUT])
    steps = how.pop("steps", list(fleet.states))
    named = {name: name if name == OUTPUT else f"network.{name}" for name in chosen}
    whole = nn.Sequential(OrderedDict([("network", fleet[0]), (OUTPUT, nn.Softmax(1))]))
    found = []
    for seed, split in enumerate(splits):
        states = {
            step: {f"network.{name}": value for name, value in state.items()}
            for step, state in fleet.states.member(seed).items()
            if step in steps
        }
        x, y = inputs(split)
        found.append(measure.information_plane(whole, x, y, layers=list(named.values()), states=states, **how))
    both = xr.concat(found, "seed")
    return both.assign_coords(layer=list(named), seed=range(len(splits)))


def last_but_one(fleet: train.Fleet, units: type[nn.Module]) -> str:
    """The name of the last hidden layer but one."""
    return [name for name, module in fleet.template.named_modules() if isinstance(module, units)][-2]


def compression(known: xr.DataArray) -> xr.DataArray:
    """The largest I(X;T) over the steps minus the one at the end, in bits."""
    return known.max("step") - known.isel(step=-1, drop=True)
