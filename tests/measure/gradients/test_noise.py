import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data, models
from phenoscope.core.errors import InputError
from phenoscope.measure import gradient_noise


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def squared(outputs, y):
    return 0.5 * (outputs.squeeze(-1) - y).square().mean()


def linear(d, weight):
    model = nn.Linear(d, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def test_linear_regression_has_its_closed_form():
    # g = x (x.e - noise) with e = w - w*, x ~ N(0, I_d): E g = e, E |g|^2 = (d + 2)|e|^2 + d s^2,
    # so the trace is (d + 1)|e|^2 + d s^2; n = 20000: 1.5 %. Along e the gradient has variance 2|e|^2 + s^2, which
    # leaves 2.4 % in the squared norm
    d, s = 5, 0.7
    rule = data.teacher(d, noise=s, dtype=torch.float64, generator=0)
    x, y = rule.sample(20000, 1)
    off = torch.tensor([0.6, -0.3, 0.0, 0.2, 0.1], dtype=torch.float64)
    found = gradient_noise(linear(d, rule.weight + off), squared, (x, y))
    size = float(off.square().sum())
    assert found.trace == pytest.approx((d + 1) * size + d * s**2, rel=0.05)
    assert found.squared_norm == pytest.approx(size, rel=0.1)
    assert found.scale == found.trace / found.squared_norm and found.n == 20000


def test_batches_drawn_without_replacement_scatter_as_predicted():
    # 2000 draws of a sum over 6 parameters, all much alike: the estimate spreads by sqrt(2 / 2000 / 6) = 1.3 %
    n, size, d = 60, 12, 6
    x, y = (
        torch.randn(n, d, generator=rng(), dtype=torch.float64),
        torch.randn(n, generator=rng(1), dtype=torch.float64),
    )
    model = linear(d, torch.zeros(d))
    found = gradient_noise(model, squared, (x, y))
    draws, order = [], rng(2)
    for _ in range(2000):
        rows = torch.randperm(n, generator=order)[:size]
        (gradient,) = torch.autograd.grad(squared(model(x[rows]), y[rows]), [model.weight])
        draws.append(gradient.flatten())
    scatter = float(torch.stack(draws).var(0).sum())
    assert scatter == pytest.approx(found.trace / size * (n - size) / n, rel=0.05)


def test_the_chunk_and_the_form_of_the_data_do_not_matter():
    split = data.digits(train=90)
    model = models.mlp((1, 8, 8), 10, width=(12,), generator=0)
    loss = nn.functional.cross_entropy
    whole = gradient_noise(model, loss, split.train, chunk=90)
    for other in (
        gradient_noise(model, loss, split.train, chunk=7),
        gradient_noise(model, loss, split.train),
        gradient_noise(model, loss, DataLoader(TensorDataset(*split.train), batch_size=40), chunk=16),
    ):
        assert other.n == 90
        assert other.trace == pytest.approx(whole.trace, rel=1e-5)  # gradients in float32
        assert other.squared_norm == pytest.approx(whole.squared_norm, rel=1e-5)


def test_it_agrees_with_gradients_taken_one_by_one_and_leaves_the_model_alone():
    x, y = (part[:20] for part in data.digits().train)
    model = models.cnn((1, 8, 8), 10, width=(4,), generator=0).eval()
    rows = []
    for i in range(20):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    table = torch.stack(rows).double()
    found = gradient_noise(model, nn.functional.cross_entropy, (x, y))
    assert found.trace == pytest.approx(float(table.var(0).sum()), rel=1e-5)
    wanted = float(table.mean(0).square().sum()) - found.trace / 20
    assert found.squared_norm == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training


def test_equal_examples_have_no_noise_and_pure_noise_has_no_scale():
    model = linear(2, torch.tensor([1.0, 2.0]))
    x, y = torch.ones(6, 2, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    same = gradient_noise(model, squared, (x, y), chunk=4)
    assert same.trace == pytest.approx(0, abs=1e-20) and same.scale == pytest.approx(0, abs=1e-20)
    # at two opposite gradients the mean is zero, and the corrected squared norm below it
    opposite = gradient_noise(linear(1, torch.zeros(1)), squared, (x[:2, :1], torch.tensor([1.0, -1.0]).double()))
    assert opposite.trace == pytest.approx(2) and opposite.squared_norm == pytest.approx(-1)
    assert math.isnan(opposite.scale)


def test_the_bias_correction_is_needed():
    # true gradient zero: uncorrected |m|^2 is trace / n on average
    d, found = 4, []
    for seed in range(300):
        x = torch.randn(5, d, generator=rng(seed), dtype=torch.float64)
        noise = torch.randn(5, generator=rng(seed + 1000), dtype=torch.float64)
        found.append(gradient_noise(linear(d, torch.zeros(d)), squared, (x, noise)).squared_norm)
    values = torch.tensor(found)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 300**0.5
    assert d / 5 > 5 * float(values.std()) / 300**0.5  # what it would be uncorrected


def test_what_has_no_noise_is_refused():
    x, y = data.digits().train
    model = models.mlp((1, 8, 8), 10, width=(4,), generator=0)
    with pytest.raises(InputError, match="two examples"):
        gradient_noise(model, nn.functional.cross_entropy, (x[:1], y[:1]))
    with pytest.raises(InputError, match="eval"):
        gradient_noise(
            models.mlp((1, 8, 8), 10, width=(4,), norm="batch", generator=0),
            nn.functional.cross_entropy,
            (x[:8], y[:8]),
        )
