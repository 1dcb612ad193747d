import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure import gradient_snr


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_at_the_least_squares_optimum_there_is_no_signal():
    # batches of 30, 30, 30 and 10: only if each counts by its size do they add up to the whole gradient
    x = torch.randn(100, 3, generator=rng(), dtype=torch.float64)
    y = torch.randn(100, 1, generator=rng(1), dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    found = gradient_snr(model, mse_loss, (x, y), batch_size=30)
    assert found.layer.values.tolist() == ["weight"]
    assert found.signal.item() == pytest.approx(0, abs=1e-12) and found.noise.item() > 0.01


def test_signal_and_noise_are_their_definitions():
    split = data.digits(train=200)
    x, y = split.train
    model = models.mlp((1, 8, 8), 10, width=(6,), generator=0)
    found = gradient_snr(model, cross_entropy, (x, y), batch_size=50)
    for name, weight in (("linear1.weight", model.linear1.weight), ("logits.weight", model.logits.weight)):
        parts = [
            torch.autograd.grad(cross_entropy(model(a), b), [weight])[0]
            for a, b in zip(x.split(50), y.split(50), strict=True)
        ]
        rows = torch.stack(parts).double()
        size = float(weight.detach().norm())
        at = found.sel(layer=name)
        assert float(at.signal) == pytest.approx(float(rows.mean(0).norm()) / size, rel=1e-5)
        noise = float(rows.var(0, correction=0).sum().sqrt()) / size
        assert float(at.noise) == pytest.approx(noise, rel=1e-5)
        assert float(at.snr) == pytest.approx(float(at.signal / at.noise), rel=1e-9)
    loader = gradient_snr(model, cross_entropy, DataLoader(TensorDataset(x, y), batch_size=50))
    np.testing.assert_allclose(loader.snr, found.snr, rtol=1e-6)


def test_a_planted_drift_is_told_from_diffusion():
    # g = -2 (y - 0) x at x = 1: all labels at 1 +- s; batches of 25 scatter by s / 5, 400 of them: 4 %
    x = torch.ones(10000, 1, dtype=torch.float64)
    noise = torch.randn(10000, 1, generator=rng(), dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.5)
    drift = gradient_snr(model, mse_loss, (x, 0.5 + 1 + 0.1 * noise), batch_size=25).snr.item()
    assert drift == pytest.approx(1 / (0.1 / 5), rel=0.15)
    still = gradient_snr(model, mse_loss, (x, 0.5 + noise - noise.mean()), batch_size=25).snr.item()
    assert still < 1e-10
    # the trap: single examples have a fifth of the ratio of batches of 25
    alone = gradient_snr(model, mse_loss, (x, 1.5 + 0.1 * noise), batch_size=1).snr.item()
    assert drift / alone == pytest.approx(5, rel=0.15)


def test_weights_stand_still_and_a_watch_can_call_it():
    split = data.digits(train=100)
    model = models.cnn((1, 8, 8), 10, width=(3,), norm="batch", generator=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gradient_snr(model, cross_entropy, split.train, batch_size=25)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and model.training
    assert found.sizes["layer"] == 2 and (found.snr > 0).all()
    flat = models.mlp((1, 8, 8), 10, width=(3,), generator=0)
    watch = train.Watch({"snr": lambda m: gradient_snr(m, cross_entropy, split.train, batch_size=25).snr.values}, at=2)
    fit = train.fit(flat, split.train, steps=2, optimizer=torch.optim.SGD(flat.parameters(), lr=0.1), watch=watch)
    assert fit.watched.snr.shape == (2, 2)


def test_no_gradient_is_neither_signal_nor_noise():
    model = nn.Linear(2, 1)
    found = gradient_snr(model, lambda out, y: 0 * out.sum(), (torch.ones(4, 2), torch.ones(4)), batch_size=2)
    assert found.signal.item() == 0 and math.isnan(found.snr.item())


def test_what_has_no_batches_to_compare_is_refused():
    x, y = data.digits(train=20).train
    model = models.mlp((1, 8, 8), 10, width=(3,), generator=0)
    with pytest.raises(InputError, match="smaller batch_size"):
        gradient_snr(model, cross_entropy, (x, y), batch_size=20)
    with pytest.raises(InputError, match="no trainable weights"):
        gradient_snr(model.requires_grad_(False), cross_entropy, (x, y), batch_size=5)
