"""Planted filters, through a real training: those that never learn are found, and zeroing them shows their worth."""

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run, prune, train
from phenoscope.record import ablate, least_evolved, redundant

PLANTED = [1, 4, 6]


def problem(generator):
    """Two classes of noisy images: which of two stripes is brighter."""
    g = torch.Generator().manual_seed(generator)
    y = torch.randint(2, (400,), generator=g)
    x = torch.randn(400, 1, 8, 8, generator=g)
    x[torch.arange(400), 0, 2 + 3 * y] += 1.0
    return x, y


def without_gradient(parameter, rows):
    keep = torch.ones(len(parameter), *[1] * (parameter.ndim - 1))
    keep[rows] = 0
    parameter.register_hook(lambda gradient: gradient * keep)


def trained(tmp_path, connected):
    """A network whose planted filters of the first layer get no gradient; their outgoing weights are zero, or not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2))
    without_gradient(model[0].weight, PLANTED)
    without_gradient(model[0].bias, PLANTED)
    with torch.no_grad():
        if connected:  # strong detectors of stripes, which the rest learns to rely on
            model[0].weight[PLANTED] = 0.0
            model[0].weight[PLANTED, :, 1] = 3.0
        else:
            model[2].weight[:, PLANTED] = 0.0
    if not connected:
        keep = torch.ones(1, 8, 1, 1)
        keep[:, PLANTED] = 0
        model[2].weight.register_hook(lambda gradient: gradient * keep)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=5):
        train.fit(model, problem(1), optimizer=optimizer, epochs=10, batch_size=32, generator=0)
    return model, open_run(tmp_path / "run")


@pytest.mark.parametrize("connected", [False, True])
def test_exactly_the_planted_filters_are_redundant_and_least_evolved(tmp_path, connected):
    _, run = trained(tmp_path, connected)
    found = redundant(run)
    assert found["0"].tolist() == PLANTED and found.counts == {"0": 3, "2": 0, "5": 0}
    assert set(PLANTED) == set(least_evolved(run, 3 / 8)["0"].tolist())
    assert (run.average("0").distance[PLANTED] == 0).all() and (run.average("0").idle[PLANTED] == 1).all()


def test_zeroing_and_cutting_out_unconnected_filters_changes_no_output(tmp_path):
    model, run = trained(tmp_path, connected=False)
    held_out = problem(2)
    table = ablate(model, redundant(run), lambda m: train.accuracy(m, held_out), repeats=5, generator=0)
    assert table["drop"].values.tolist() == [0.0] * 4 and float(table["random_mean"][0]) > 0
    small = prune.slim(model, redundant(run), held_out[0][:2])
    assert small[0].out_channels == 5
    torch.testing.assert_close(small(held_out[0]), model(held_out[0]), rtol=1e-5, atol=1e-6)  # sums of fewer zeros
    with torch.no_grad():
        before = model(held_out[0])
        model[0].weight[PLANTED] = 0
        model[0].bias[PLANTED] = 0
        assert torch.equal(model(held_out[0]), before)


def test_zeroing_untrained_but_connected_filters_shows_their_cost(tmp_path):
    model, run = trained(tmp_path, connected=True)
    held_out = problem(2)
    table = ablate(model, redundant(run), lambda m: train.accuracy(m, held_out), repeats=10, generator=0).sel(layer="0")
    assert float(table.accuracy) > 0.9
    assert float(table["drop"]) > 0.05, "the network relied on them"
    assert float(table["drop"]) > float(table["random_high"]), "and more than on as many others"
    assert np.isfinite(table["random_drop"]).all()
