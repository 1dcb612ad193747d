"""Digits from 0 to 1, and networks trained on them plainly or against an attack, all seeds of an arm as one fleet."""

from __future__ import annotations

from functools import partial

import torch
import xarray as xr

from ... import data, models, robust, train

RATE = 1e-3


def digits(*, generator=None) -> data.Split:
    """1000 digits for training and 797 for testing, blank pixels 0 and full ink 1."""
    return data.digits(train=1000, scale="unit", generator=generator)


def mlp(shape, num_classes, *, generator=None):
    """A multilayer perceptron with two hidden layers of 128 units."""
    return models.mlp(shape, num_classes, width=(128, 128), generator=generator)


def splits(lab, dataset, seeds: int) -> list[data.Split]:
    """One split of the data for each seed."""
    return [data.load(dataset, generator=lab.seed("split", seed)) for seed in range(seeds)]


def trained(lab, model, parts: list[data.Split], *, objective=None, epochs: int) -> train.Fleet:
    """A network for each split, by Adam; seeds of networks and orders do not depend on the objective."""
    return train.fleet(
        partial(train.build, model, shape=parts[0].train[0].shape[1:], num_classes=len(parts[0].classes)),
        [part.train for part in parts],
        epochs=epochs,
        optimizer=partial(torch.optim.Adam, lr=RATE),
        objective=objective,
        generator=[lab.seed("network", seed) for seed in range(len(parts))],
        device=lab.device,
    )


def evaluated(lab, fleet: train.Fleet, parts: list[data.Split], *, eps: float) -> xr.Dataset:
    """`robust.evaluate` on the test parts in the max-norm, over `seed`, without the single examples."""
    tests = [part.test for part in parts]
    found = robust.evaluate(fleet, tests, eps=eps, clip=parts[0].range, generator=lab.seed("attack"))
    return found.drop_vars("correct").rename(member="seed")
