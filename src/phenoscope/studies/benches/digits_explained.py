"""The bench of attributions on digits: pixels from 0 to 1, 1297 to train and 500 to explain, and a small CNN."""

from __future__ import annotations

import functools

import torch
from torch import nn

from ... import data, models, train

digits = functools.partial(data.digits, train=1297, scale="unit")
cnn = functools.partial(models.cnn, width=(16, 32), pool=(1, 2), hidden=(64,))


def trained(lab, *, model, dataset, epochs, seed) -> tuple[data.Split, nn.Module]:
    """The data and the trained network of a seed: Adam at 1e-3, batches of 64."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    network = train.build(
        model,
        shape=tuple(split.train[0].shape[1:]),
        num_classes=len(split.classes),
        generator=lab.seed("network", seed),
    ).to(lab.device)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    train.fit(network, split.train, epochs=epochs, optimizer=adam, generator=lab.seed("order", seed))
    return split, network
