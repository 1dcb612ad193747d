"""How many members of a fleet are computed together; whatever it is, they come out the same."""

import functools

import pytest
import torch
from torch import nn

from phenoscope import data
from phenoscope.train import States, Watch, fleet, fleet_steps
from phenoscope.train.fleet_steps import Part, in_parts

SPLIT = data.digits(train=200)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
MB = 2**20


def whole(members, weights):
    """Members with so many bytes of weights."""
    tensors = {"weight": torch.zeros(members, weights // 4)}
    return Part(tensors, {}, {}, {"weight": 0.1}, {"weight": 0.0}, frozenset({"weight"}), 0, members)


@pytest.mark.parametrize(
    ("weights", "activations", "sizes"),
    [
        (4096, 4096, [40]),  # small ones: all that fit into the caches
        (4096, MB, [8] * 5),  # eight, because calls cost more than caches gain
        (4 * MB, 2 * MB, [2] * 20),  # large weights
        (4096, 12 * MB, [1] * 40),  # large activations: a plain loop
        (4 * MB, 0, [40]),  # an objective: not known
    ],
)
def test_members_that_take_much_memory_are_computed_few_at_a_time(weights, activations, sizes):
    parts = in_parts(whole(40, weights), activations, 1)
    assert [part.end - part.start for part in parts] == sizes
    assert parts[0].start == 0 and parts[-1].end == 40
    in_two = in_parts(whole(40, weights), activations, 2)
    assert len(in_two) % 2 == 0 and max(part.end - part.start for part in in_two) <= max(sizes)


def cnn():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x):
        h = torch.relu(self.first(x.flatten(1)))
        return self.last(h + torch.relu(self.second(h)))


@pytest.mark.parametrize(("make", "weight"), [(cnn, "0.weight"), (Residual, "second.weight")])
def test_one_by_one_and_together_are_the_same_whatever_differs_by_member(make, weight, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = SPLIT.train
    shape = make().get_parameter(weight).shape
    reports = []
    settings = {
        "members": 3, "steps": 12, "optimizer": SGD, "batch_size": 30, "lr": [0.1, 0.05, 0.02],
        "weight_decay": [0.0, 1e-2, 0.1], "schedule": lambda step: 1 - step / 20,
        "masks": [{weight: (torch.rand(shape, generator=generator) < 0.5).float()}, None, {weight: torch.ones(shape)}],
        "labels": torch.stack([y, y.flip(0), (y + 1) % 10]),
        "rows": torch.stack([torch.randperm(200, generator=generator)[:100] for _ in range(3)]),
        "watch": Watch({"sum": lambda model: model(x[:20]).sum()}, at=6), "states": States(at=[0, 7]),
        "generator": [3, 4, 5], "progress": lambda *report: reports.append(report[:2]), "device": "cpu",
    }  # fmt: skip
    found = []
    for limit in (10**12, 1):
        monkeypatch.setattr(fleet_steps, "_BYTES_AT_MOST", limit)
        found.append(fleet(make, SPLIT.train, **settings))
    for name, values in found[0].parameters.items():  # single precision, sums in another order
        torch.testing.assert_close(found[1].parameters[name], values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1].states[7][name], found[0].states[7][name], rtol=1e-4, atol=1e-5)
    for name, values in found[0].buffers.items():
        torch.testing.assert_close(found[1].buffers[name], values, rtol=1e-4, atol=1e-5)
    assert found[1].history.loss.values == pytest.approx(found[0].history.loss.values, rel=1e-4)
    assert found[1].watched["sum"].values == pytest.approx(found[0].watched["sum"].values, rel=1e-3, abs=1e-4)
    assert reports[-1] == (12, 12) and reports.count((12, 12)) == 2
