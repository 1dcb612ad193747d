import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import kernels, models, theory
from phenoscope.core.errors import InputError
from phenoscope.core.random import child_seeds
from phenoscope.stats import loglog_slope
from phenoscope.train import build

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def network(width=8, *, depth=2, activation="relu", parametrization="ntk", sigma_b2=0.01):
    return functools.partial(
        models.mlp, width=width, depth=depth, activation=activation, parametrization=parametrization,
        init=functools.partial(models.init_gaussian, sigma_w2=2.0, sigma_b2=sigma_b2),
    )  # fmt: skip


def limit(depth=2, act="relu", sigma_b2=0.01):
    return functools.partial(kernels.mlp_kernels, depth=depth, act=act, sigma_w2=2.0, sigma_b2=sigma_b2)


class Normed(nn.Module):
    """Buffers, a frozen parameter, dropout, and an activation in place."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.frozen(self.body(x)))


@pytest.mark.parametrize(("make", "count"), [(network(), 1), (Normed, 2)])
def test_the_diagonal_is_that_of_the_tangent_kernel_network_by_network(make, count):
    x = X.double()
    found = kernels.ntk_moments(make, x, repeats=4, num_classes=count, generator=3)
    for row, seed in zip(found.kernel.values, child_seeds(3, 4), strict=True):
        one = build(make, shape=(5,), num_classes=count, generator=seed).double().eval()
        expected = kernels.empirical_ntk(one, x, outputs="trace").diagonal()
        np.testing.assert_allclose(row, expected, rtol=1e-10)  # float64
    np.testing.assert_allclose(found["mean"], found.kernel.mean("repeat"))
    np.testing.assert_allclose(found["std"], found.kernel.std("repeat", ddof=1))
    np.testing.assert_allclose(found["ratio"], (found.kernel**2).mean("repeat") / found.kernel.mean("repeat") ** 2)


def test_the_kernel_after_steps_is_that_of_a_network_that_took_them_on_this_example_alone():
    x, y = X.double(), torch.tensor([[1.0], [-2.0], [0.5]]).double()
    found = kernels.ntk_moments(network(), x, repeats=2, steps=2, lr=0.05, y=y, generator=0)
    for row, seed in zip(found.kernel_after.values, child_seeds(0, 2), strict=True):
        for value, one, target in zip(row, x, y, strict=True):
            trained = build(network(), shape=(5,), num_classes=1, generator=seed).double()
            optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
            for _ in range(2):
                optimizer.zero_grad()
                (0.5 * (trained(one[None]) - target).square().sum()).backward()
                optimizer.step()
            expected = kernels.empirical_ntk(trained, one[None], outputs="trace")
            assert value == pytest.approx(float(expected), rel=1e-9)
    change = (found.kernel_after - found.kernel).mean("repeat") / found.kernel.mean("repeat")
    np.testing.assert_allclose(found.change, change)


def test_chunks_do_not_matter(monkeypatch):
    whole = kernels.ntk_moments(network(), X, repeats=5, steps=1, lr=0.1, generator=1)
    monkeypatch.setitem(kernels.ntk_moments.__globals__, "_BYTES", 1)
    parts = kernels.ntk_moments(network(), X, repeats=5, steps=1, lr=0.1, generator=1)
    for name in ("kernel", "kernel_after", "change"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4)  # float32


def test_the_fluctuation_is_the_predicted_one_and_a_linear_models_none():
    # 500 networks are sure of ln R = 0.67 to about 15 %; without biases, as predicted
    found = kernels.ntk_moments(network(10, sigma_b2=0.0), X[:1], repeats=500, generator=0)
    assert math.log(float(found.ratio[0])) == pytest.approx(math.log(theory.ntk_fluctuation([10, 10])), rel=0.4)
    flat = kernels.ntk_moments(network(depth=0, width=()), X, repeats=3, generator=0)
    np.testing.assert_allclose(flat["ratio"], 1, rtol=1e-6)


def test_outputs_have_the_kurtosis_of_a_gaussian_whose_variance_is_random():
    # one hidden layer without bias: excess 3 Var q / (E q)^2, q the mean of n squares: 6 / n for a linear network, with
    # 300 networks of 20 outputs sure to about 0.25; a model without hidden layers has none at all
    many = dict(repeats=300, get=("nngp",), num_classes=20, generator=0)
    found = kernels.finite_width_gap(
        network(depth=1, activation="identity", sigma_b2=0.0), X, limit=limit(1, "linear", 0.0), widths=[4], **many
    )
    assert float(found.excess_kurtosis[0]) == pytest.approx(1.5, abs=0.7)
    assert float(found.nngp_gap[0]) < 0.1  # the limit's covariance is exact at any width here
    control = kernels.finite_width_gap(
        lambda shape, num_classes, width, generator: models.mlp(
            shape, num_classes, width=(), parametrization="ntk", generator=generator
        ),
        X, limit=limit(0, sigma_b2=0.0), widths=[4], **many,
    )  # fmt: skip
    assert abs(float(control.excess_kurtosis[0])) < 0.2
    assert set(found) == {"nngp_gap", "excess_kurtosis"}


def test_the_tangent_kernel_becomes_the_limits_and_its_variance_falls_like_one_over_the_width():
    found = kernels.finite_width_gap(
        network(), X, limit=limit(), widths=(16, 64, 256, 1024), repeats=20, get=("ntk",), generator=0
    )
    assert loglog_slope(found.width, found.ntk_variance).estimate == pytest.approx(-1, abs=0.3)
    assert float(found.ntk_gap[-1]) < 0.03 and float(found.ntk_gap[0]) > float(found.ntk_gap[-1])
    np.testing.assert_allclose(found.ntk_deviation.sum("repeat") / 19, found.ntk_variance)


def test_the_standard_parametrization_has_another_limit():
    # its kernel grows with the width, so that the analytic one of the NTK parametrization is not its own
    found = kernels.finite_width_gap(
        network(parametrization="standard"), X, limit=limit()(X), widths=(64, 256), repeats=5, get=("ntk",), generator=0
    )
    assert (found.ntk_gap > 5).all() and float(found.ntk_gap[1] / found.ntk_gap[0]) == pytest.approx(4, rel=0.2)


def test_a_wide_network_agrees_with_the_closed_form():
    # 30 networks with one hidden layer of 4096: entries vary by about 1 %, their means by 0.2 %
    found = kernels.finite_width_gap(
        network(depth=1), X, limit=limit(1), widths=[4096], repeats=30, get=("ntk",), generator=0
    )
    assert float(found.ntk_gap[0]) < 0.015


def test_the_same_seed_gives_the_same_numbers_and_the_factory_is_left_alone():
    state = torch.random.get_rng_state()
    ask = functools.partial(kernels.finite_width_gap, network(), X, limit=limit(), widths=[4, 8], repeats=3)
    assert ask(generator=5).identical(ask(generator=5)) and not ask(generator=5).identical(ask(generator=6))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": []}, "width"), ({"repeats": 1}, "two repetitions"), ({"get": ("ntks",)}, "get"),
        ({"limit": limit()(X[:2])}, "matrix"),
    ],
)  # fmt: skip
def test_wrong_input_to_the_gap_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        kernels.finite_width_gap(network(), X, **dict(limit=limit(), widths=[4], repeats=2, generator=0) | change)


@pytest.mark.parametrize(
    ("change", "message"), [({"repeats": 1}, "repeats"), ({"steps": -1}, "steps"), ({"steps": 1}, "lr=")]
)
def test_wrong_input_to_the_moments_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        kernels.ntk_moments(network(), X, **dict(repeats=2, generator=0) | change)
