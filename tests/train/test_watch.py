"""Observers that are called once for many members see what those see that are called member by member."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.train import Fleet, Watch, build, fit, fleet

SPLIT = data.digits(train=200)
X, Y = (part[:80] for part in SPLIT.test)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def normed():
    hidden = [nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(12, 10))


def cnn():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 10))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.last(self.layers(x.squeeze(1))[0][:, -1])


def loss(model):
    return functional.cross_entropy(model(X), Y)


def decisions(model):
    return model(X).argmax(1)


def sensitivity(model):
    """Its own gradients, of inputs."""
    return torch.func.grad(lambda x: model(x).square().mean())(X[:5]).square().sum()


OBSERVERS = {"loss": loss, "decisions": decisions, "sensitivity": sensitivity, "one": lambda model: torch.ones(())}


@pytest.mark.parametrize("make", [normed, cnn, Recurrent])
def test_batched_observers_see_the_same_and_change_nothing(make):
    settings = {"members": 3, "steps": 8, "optimizer": SGD, "batch_size": 50, "generator": 0, "device": "cpu"}
    plain = fleet(make, SPLIT.train, watch=Watch(OBSERVERS, at=4), **settings)
    batched = fleet(make, SPLIT.train, watch=Watch(OBSERVERS, at=4, batched=True), **settings)
    for name, values in plain.parameters.items():
        assert torch.equal(values, batched.parameters[name])
    assert batched.watched.sizes == plain.watched.sizes and batched.watched.step.values.tolist() == [0, 4, 8]
    for name in OBSERVERS:  # single precision, sums in another order
        np.testing.assert_allclose(batched.watched[name], plain.watched[name], rtol=1e-4, atol=1e-6)
        assert batched.watched[name].dtype == plain.watched[name].dtype
    assert batched.watched.loss.std("member").min() > 0


def test_an_observer_is_called_once_for_many_members():
    calls = []

    def counted(model):
        calls.append(model)
        return loss(model)

    networks = Fleet.of([build(normed, generator=seed) for seed in range(40)])
    one_by_one = networks.map(loss)
    torch.testing.assert_close(networks.map(counted, batched=True), one_by_one, rtol=1e-5, atol=1e-6)
    assert len(calls) == 3  # 16, 16 and 8
    assert networks[0].training and all(module.training for module in networks.program.network.modules())


def test_in_fit_a_batched_watch_is_a_watch():
    seen = []

    def observe(model):
        seen.append(isinstance(model, nn.Module))
        return loss(model)

    found = []
    for batched in (False, True):
        torch.manual_seed(0)  # what dropout draws from
        watch = Watch({"loss": observe}, at=1, batched=batched)
        model = build(normed, generator=0)
        found.append(fit(model, SPLIT.train, steps=2, optimizer=SGD, watch=watch, generator=0).watched)
    assert all(seen) and found[0].equals(found[1])


def test_an_observer_that_gives_no_tensor_is_refused_with_what_to_do():
    networks = Fleet.of([build(normed, generator=seed) for seed in range(2)])
    assert networks.map(lambda model: 1.0).tolist() == [1, 1]
    with pytest.raises(InputError, match="leave out batched=True"):
        networks.map(lambda model: 1.0, batched=True)
