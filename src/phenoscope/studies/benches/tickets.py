"""The bench of lottery tickets: MNIST-1D, an MLP 40-100-100-10, step-decayed SGD."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from ... import data, models, train

mnist1d = functools.partial(data.mnist1d, train=3500, validation=500, test=1000)
mlp = functools.partial(models.mlp, width=(100, 100), init="he")
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4)
BATCH = 64
LOOKS = 24  # how often a training is looked at


def setting(lab, *, model, dataset, seed, validation=True) -> tuple[data.Split, Any]:
    """The data of a seed and a factory of networks of their shape.

    With `validation`, where the data have no such part, an eighth of the training part, chosen at random, becomes it.
    """
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    if validation and split.validation is None:
        x, y = split.train
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(lab.seed("validation", seed)))
        held, rest = (rows.to(y.device) for rows in order.split([len(y) // 8, len(y) - len(y) // 8]))
        split = dataclasses.replace(split, train=(x[rest], y[rest]), validation=(x[held], y[held]))
    shape = tuple(split.train[0].shape[1:])
    return split, functools.partial(train.build, model, shape=shape, num_classes=len(split.classes))


def training(*, steps: int) -> dict[str, Any]:
    """How every network here is trained: settings of `train.fit` and `train.fleet`."""
    schedule = train.step_decay(steps, at=(0.5, 0.75), factor=0.1)
    return {"steps": steps, "optimizer": SGD, "batch_size": BATCH, "schedule": schedule}


def recipe(split: data.Split, *, steps: int) -> dict[str, Any]:
    """The same, followed on validation and test data."""
    observers = {}
    for name, part in (("validation", split.validation), ("test", split.test)):
        observers[f"{name}_loss"] = functools.partial(loss, part=part)
        observers[f"{name}_accuracy"] = functools.partial(accuracy, part=part)
    at = sorted({round(steps * number / LOOKS) for number in range(LOOKS + 1)})
    return {**training(steps=steps), "watch": train.Watch(observers, at=at)}


def loss(model: nn.Module, *, part: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(part[0]), part[1])


def accuracy(model: nn.Module, *, part: Any) -> torch.Tensor:
    return (model(part[0]).argmax(1) == part[1]).double().mean()
