"""The bench of trainability: deep networks on digits, trained for a few steps, by depth and variances at the start."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn

from ... import data, models, train

digits = data.digits
mlp = functools.partial(models.mlp, width=64, activation="tanh")
RMSPROP = functools.partial(torch.optim.RMSprop, lr=1e-4)  # at 1e-3 nothing deeper than ten layers trains
BATCH = 128


def network(lab, model, split: data.Split, *, depth: int, sigma_w2: float, sigma_b2: float, **knobs) -> nn.Module:
    """An untrained network with Gaussian weights and biases of these variances; which ones depends on all of this."""
    seed = lab.seed("network", depth, sigma_w2, sigma_b2)
    x, _ = split.train
    built = train.build(
        model, shape=x.shape[1:], num_classes=len(split.classes), generator=seed, depth=depth, **knobs
    ).to(lab.device)
    models.init_gaussian(built, sigma_w2=sigma_w2, sigma_b2=sigma_b2, generator=seed)
    return built


def accuracies(lab, networks: Sequence[nn.Module], split: data.Split, *, steps: int, name: str) -> list[float]:
    """Training accuracy of each, trained as one fleet, every network in an order of its own."""
    seeds = [lab.seed("order", name, number) for number in range(len(networks))]
    trained = train.fleet(networks, split.train, steps=steps, optimizer=RMSPROP, batch_size=BATCH, generator=seeds)
    return [float(value) for value in trained.accuracy(split.train)]
