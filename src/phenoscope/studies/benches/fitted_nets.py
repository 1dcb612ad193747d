"""The bench of fitted networks: MNIST-1D with some wrong labels, MLPs by width and depth, trained until they fit."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from ... import data, models, train
from ...core.random import child_seeds
from ...lab.sources import address

mnist1d = functools.partial(data.mnist1d, train=2000, test=2000)
mlp = functools.partial(models.mlp, init="he")
SGD = functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9)
SEGMENT = 10  # epochs between two checks for members that need no more training

MOST_KEPT = 4  # data sets that a process keeps at once
_KEPT: dict[str, data.Split] = {}

Pair = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """Networks of one shape, each as it was when it fitted its data, or after the last epoch if it never did.

    Attributes:
        start: the networks before training.
        networks: the networks.
        steps: (members,) how many updates each had, in whole epochs.
        fitted: (members,) whether each reached what was asked.
        loss: mean over each epoch's batches, over `step`, the last of each epoch, and `member`; NaN after its end.
    """

    start: train.Fleet
    networks: train.Fleet
    steps: Tensor
    fitted: Tensor
    loss: xr.DataArray


def setting(lab, *, dataset, noise: float, seed: int) -> tuple[Pair, Pair, int]:
    """The training part with a share of its labels drawn anew, the test part as it is, and how many classes."""
    split = _loaded(dataset, lab.seed("split", seed)).to(lab.device)
    classes = len(split.classes)
    x, y = split.train
    labels, _ = data.label_noise(y, noise, classes=classes, generator=lab.seed("labels", seed, noise))
    return (x, labels), split.test, classes


def fitted(
    make_model: Callable[..., nn.Module],
    parts: Sequence[Pair],
    *,
    classes: int,
    seeds: Sequence[int],
    steps: int,
    batch: int,
    stop_loss: float | None = None,
    stop_accuracy: float | None = None,
    lr: Sequence[float] | float | None = None,
    weight_decay: Sequence[float] | float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
    device: Any = "cpu",
) -> Fitted:
    """Train networks of one shape as a fleet, each until it fits its data; the rate falls on a line to zero.

    A member ends with the first epoch whose mean loss is at most `stop_loss`, or after which its accuracy on what it
    is trained on is at least `stop_accuracy`. Every ten epochs those that are done leave the fleet; momentum then
    starts anew.

    Args:
        make_model: the factory of all members.
        parts: the training data of each member.
        classes: how many there are.
        seeds: of each member: its initialization and the order of its data.
        steps: updates after which the rate is zero, cut to whole epochs but at least one.
        batch: examples in a batch.
        stop_loss, stop_accuracy: what ends a member; without either all are trained to the end.
        lr, weight_decay: in place of the optimizer's, for all or one a member.
        optimizer: a factory from parameters.
        device: where to train.
    """
    members, count = len(seeds), -(-len(parts[0][0]) // batch)
    limit = max(1, steps // count)
    shape = parts[0][0].shape[1:]
    made = [train.build(make_model, shape=shape, num_classes=classes, generator=seed).to(device) for seed in seeds]
    start = train.Fleet.of(made)
    networks = start.copy()
    epochs = torch.full((members,), limit)
    done = torch.zeros(members, dtype=torch.bool)
    losses = torch.full((limit, members), torch.nan, dtype=torch.float64)
    orders = [child_seeds(seed, -(-limit // SEGMENT)) for seed in seeds]
    for number, first in enumerate(range(0, limit, SEGMENT)):
        left = (~done).nonzero()[:, 0]
        last = min(first + SEGMENT, limit)
        part = train.fleet(
            chosen(networks, left), [parts[member] for member in left.tolist()], epochs=last - first,
            optimizer=optimizer, lr=_of(lr, left), weight_decay=_of(weight_decay, left), batch_size=batch,
            schedule=functools.partial(_rate, before=first * count, steps=limit * count),
            states=train.States(at=[count * each for each in range(1, last - first + 1)]),
            generator=[orders[member][number] for member in left.tolist()],
        )  # fmt: skip
        by_epoch = torch.from_numpy(part.history.loss.values).unflatten(0, (-1, count)).mean(1)
        for epoch in range(first, last):
            going = (~done[left]).nonzero()[:, 0]
            if not len(going):
                break
            losses[epoch, left[going]] = by_epoch[epoch - first, going]
            reached = torch.zeros(len(going), dtype=torch.bool)
            if stop_loss is not None:
                reached |= by_epoch[epoch - first, going] <= stop_loss
            now = part.at(count * (epoch - first + 1)) if stop_accuracy is not None or bool(reached.any()) else None
            if now is not None and stop_accuracy is not None:
                own = [parts[member] for member in left.tolist()]
                reached |= now.accuracy(own).cpu()[going] >= stop_accuracy
            if now is not None and bool(reached.any()):
                _put(networks, left[going[reached]], now, going[reached])
                epochs[left[going[reached]]], done[left[going[reached]]] = epoch + 1, True
        rest = (~done[left]).nonzero()[:, 0]
        _put(networks, left[rest], part, rest)
        if bool(done.all()):
            break
    curve = xr.DataArray(
        losses.numpy(), dims=("step", "member"), coords={"step": range(count, limit * count + 1, count)}
    )
    return Fitted(start, networks, count * epochs, done, curve)


def _loaded(dataset, seed: int) -> data.Split:
    """The data; a process that does many cells makes those of a seed once."""
    key = json.dumps(address((dataset, seed)))
    if key not in _KEPT:
        while len(_KEPT) >= MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = data.load(dataset, generator=seed)
    return _KEPT[key]


def chosen(networks: train.Fleet, members: Tensor) -> train.Fleet:
    """Some members of a fleet."""
    return train.Fleet(
        networks.template,
        {name: tensor[members] for name, tensor in networks.parameters.items()},
        {name: tensor[members] for name, tensor in networks.buffers.items()},
    )


def _put(into: train.Fleet, members: Tensor, source: train.Fleet, places: Tensor) -> None:
    with torch.no_grad():
        for name, tensor in (*into.parameters.items(), *into.buffers.items()):
            tensor[members] = {**source.parameters, **source.buffers}[name][places]


def _of(value: Sequence[float] | float | None, members: Tensor) -> Any:
    return [value[member] for member in members.tolist()] if isinstance(value, Sequence) else value


def _rate(step: int, *, before: int, steps: int) -> float:
    return 1 - (before + step) / steps
