import functools

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError

ERF = functools.partial(kernels.mlp_kernels, depth=2, act="erf", sigma_w2=1.5**2, sigma_b2=0.05**2)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def given(nngp, ntk=None):
    """A kernel of made-up matrices over examples that are their own numbers."""
    ntk = nngp if ntk is None else ntk

    def kernel(x1, x2=None):
        rows, columns = x1.long().flatten(), (x1 if x2 is None else x2).long().flatten()
        return kernels.LimitKernels(nngp[rows][:, columns], ntk[rows][:, columns])

    return kernel


def numbers(n):
    return torch.arange(float(n))[:, None]


def gram(n, seed=0):
    root = draw(n, n + 4, seed=seed)
    return root @ root.T / n


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("flow", [True, False])
def test_at_the_start_it_is_the_prior(get, flow):
    x, y, test = draw(8, 3), draw(8, 2, seed=1), draw(5, 3, seed=2)
    found = kernels.predict(ERF, x, y, test, t=0, get=get, flow=flow)
    assert torch.equal(found.mean, torch.zeros(5, 2, dtype=torch.float64))
    torch.testing.assert_close(found.covariance, ERF(test).nngp, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_in_the_end_it_interpolates_with_certainty(get):
    x, y = draw(8, 3), draw(8, 2, seed=1)
    for t in (None, 1e9):
        found = kernels.predict(ERF, x, y, x, t=t, get=get)
        torch.testing.assert_close(found.mean, y, rtol=1e-8, atol=1e-8)
        assert float(found.std.max()) < 1e-6  # the root of float64's rounding
    assert float(kernels.predict(ERF, x, y, draw(5, 3, seed=2), get=get).std.min()) > 0.01


def test_flow_is_the_matrix_exponential_in_mean_and_covariance():
    n, m, rate, t = 6, 4, 0.3, 2.0
    q, theta, y = gram(n + m), gram(n + m, seed=1), draw(n, 2, seed=2)
    trained = theta[:n, :n]
    done = torch.eye(n, dtype=torch.float64) - torch.as_tensor(expm(-rate * t * trained.numpy()))
    moved = theta[n:, :n] @ torch.linalg.inv(trained) @ done
    mean = moved @ y
    both = torch.cat([-moved, torch.eye(m, dtype=torch.float64)], 1)
    found = kernels.predict(given(q, theta), numbers(n), y, numbers(n + m)[n:], t, lr=rate)
    torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.covariance, both @ q @ both.T, rtol=1e-9, atol=1e-9)


def test_an_ensemble_drawn_from_the_prior_and_trained_spreads_as_predicted():
    """Functions at random starts, each trained step by step; 4,000 of them, so that variances are within 10 %."""
    n, m, lr, steps = 5, 3, 0.2, 25
    q, theta, y = gram(n + m), gram(n + m, seed=1), draw(n, seed=2)
    f = torch.linalg.cholesky(q) @ draw(n + m, 4000, seed=3)
    for _ in range(steps):
        f = f - lr * theta[:, :n] @ (f[:n] - y[:, None])
    found = kernels.predict(given(q, theta), numbers(n), y, numbers(n + m)[n:], steps, lr=lr, flow=False)
    assert found.mean.shape == (m,)
    error = f[n:].std(1) / 4000**0.5
    assert ((f[n:].mean(1) - found.mean).abs() < 5 * error).all()
    np.testing.assert_allclose(f[n:].std(1), found.std, rtol=0.06)  # five standard errors
    bayes = kernels.predict(given(q, theta), numbers(n), y, numbers(n + m)[n:], get="nngp")
    assert float((bayes.std / found.std).log().abs().max()) > 0.3  # training is not conditioning


@pytest.mark.parametrize("flow", [True, False])
def test_where_the_last_layer_trains_the_covariance_is_that_of_both_kernels_alike(flow):
    n, m = 6, 4
    q, y = gram(n + m), draw(n, 2, seed=2)
    for t in (3, None):
        one, other = (
            kernels.predict(given(q), numbers(n), y, numbers(n + m)[n:], t, lr=0.2, flow=flow, get=get)
            for get in ("nngp", "ntk")
        )
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(one.covariance, other.covariance, rtol=1e-9, atol=1e-10)


def test_with_a_ridge_it_is_the_bayesian_posterior_under_noise():
    n, m = 6, 4
    q, y = gram(n + m), draw(n, 2, seed=2)
    noisy = q[:n, :n] + 0.1 * q[:n, :n].diagonal().mean() * torch.eye(n)
    found = kernels.predict(given(q), numbers(n), y, numbers(n + m)[n:], get="nngp", ridge=0.1)
    torch.testing.assert_close(found.mean, q[n:, :n] @ torch.linalg.solve(noisy, y))
    torch.testing.assert_close(found.covariance, q[n:, n:] - q[n:, :n] @ torch.linalg.solve(noisy, q[:n, n:]))


def test_many_small_steps_are_flow_and_several_times_are_each_alone():
    x, y, test = draw(8, 3), draw(8, 2, seed=1), draw(5, 3, seed=2)
    times = [40.0, 0.0, 3.0]
    flow = kernels.predict(ERF, x, y, test, times, lr=1.0)
    steps = kernels.predict(ERF, x, y, test, [100_000 * t for t in times], lr=1e-5, flow=False)
    torch.testing.assert_close(flow.mean, steps.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(flow.covariance, steps.covariance, rtol=1e-3, atol=1e-4)
    for number, t in enumerate(times):
        alone = kernels.predict(ERF, x, y, test, t, lr=1.0)
        torch.testing.assert_close(alone.mean, flow.mean[number])
        torch.testing.assert_close(alone.covariance, flow.covariance[number])


@pytest.mark.parametrize("loss", ["half_sum", "half_mean", "mse"])
@pytest.mark.parametrize("flow", [True, False])
def test_it_is_the_linearized_networks_prediction_for_its_own_kernel_and_start(loss, flow):
    model = models.mlp((5,), 1, width=(8, 7), activation="tanh", init="lecun", generator=0).double()
    x, y, test = draw(9, 5), draw(9, 1, seed=1), draw(4, 5, seed=2)

    def kernel(x1, x2=None):
        ntk = kernels.empirical_ntk(model, x1, x2)[:, :, 0, 0]
        return kernels.LimitKernels(ntk, ntk)

    start, start_test = (model(each).detach() for each in (x, test))
    expected = kernels.linear_prediction(model, x, y, test, [3, 20], lr=0.02, loss=loss, flow=flow)
    found = kernels.predict(kernel, x, y - start, test, [3, 20], lr=0.02, loss=loss, flow=flow, covariance=False)
    torch.testing.assert_close(found.mean + start_test, expected, rtol=1e-10, atol=1e-10)
    assert found.covariance is None


def euler(theta, y, n, *, rate, t, steps):
    """Cross-entropy from zero outputs, by the crudest rule."""
    f = torch.zeros(len(theta), y.shape[1], dtype=torch.float64)
    for _ in range(steps):
        f = f - rate * t / steps * theta[:, :n] @ (f[:n].softmax(1) - y)
    return f


@pytest.mark.parametrize(("loss", "share"), [("cross_entropy", 1 / 6), ("cross_entropy_sum", 1.0)])
def test_the_flow_of_cross_entropy_is_the_limit_of_small_steps(loss, share):
    n, m, t = 6, 4, 3.0
    theta, labels = gram(n + m, seed=1), torch.tensor([0, 1, 2, 2, 1, 0])
    y = functional.one_hot(labels).double()
    kernel = given(1e-16 * gram(n + m), theta)  # all networks start at zero
    args = (numbers(n), labels, numbers(n + m)[n:])
    flow = kernels.predict(kernel, *args, [t, 0.0], lr=0.5, loss=loss, draws=2, generator=0)
    coarse, fine = (euler(theta, y, n, rate=0.5 * share, t=t, steps=steps)[n:] for steps in (4000, 8000))
    # Richardson: the error of the crude rule falls as one over its steps
    torch.testing.assert_close(flow.mean[0], 2 * fine - coarse, rtol=1e-5, atol=1e-5)
    assert float(flow.mean[1].abs().max()) < 1e-6 and float(flow.covariance.abs().max()) < 1e-12
    discrete = kernels.predict(kernel, *args, 30, lr=0.5, loss=loss, flow=False, draws=2, generator=0)
    crude = euler(theta, y, n, rate=0.5 * share, t=30, steps=30)[n:]
    torch.testing.assert_close(discrete.mean, crude, rtol=1e-6, atol=1e-6)
    soft = kernels.predict(kernel, args[0], y, args[2], 30, lr=0.5, loss=loss, flow=False, draws=2, generator=0)
    assert torch.equal(soft.mean, discrete.mean)


def test_steps_of_cross_entropy_are_those_of_a_linear_networks_training():
    x, test, labels = draw(10, 4), draw(5, 4, seed=1), torch.arange(10) % 3
    model = nn.Linear(4, 3, bias=False).double()
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    def kernel(x1, x2=None):
        inner = x1 @ (x1 if x2 is None else x2).T
        return kernels.LimitKernels(1e-20 * inner, inner)

    found = kernels.predict(kernel, x, labels, test, 40, lr=0.5, loss="cross_entropy", flow=False, draws=2, generator=0)
    torch.testing.assert_close(found.mean, model(test).detach(), rtol=1e-7, atol=1e-7)


def test_draws_of_cross_entropy_start_from_the_prior_and_keep_to_their_seed():
    n, m = 5, 3
    q, theta, y = gram(n + m), gram(n + m, seed=1), torch.tensor([0, 1, 0, 1, 1])
    args = (given(q, theta), numbers(n), y, numbers(n + m)[n:])
    found = kernels.predict(*args, [0.0, 50.0], loss="cross_entropy", draws=4000, generator=1)
    assert found.mean.shape == (2, m, 2) and found.covariance.shape == (2, 2, m, m) and found.std.shape == (2, 2, m)
    scale = float(q.diagonal().max())
    for c in range(2):  # five standard errors of 4,000 draws
        torch.testing.assert_close(found.covariance[0, c], q[n:, n:], rtol=0, atol=5 * scale * 2**0.5 / 4000**0.5)
    assert float(found.mean[0].abs().max()) < 5 * scale**0.5 / 4000**0.5
    again, other = (
        kernels.predict(*args, 1.0, loss="cross_entropy", draws=3, generator=seed, covariance=False).mean
        for seed in (1, 2)
    )
    same = kernels.predict(*args, 1.0, loss="cross_entropy", draws=3, generator=1, covariance=False).mean
    assert torch.equal(again, same) and not torch.equal(again, other)
    # cross-entropy sees the difference of two outputs alone: their sum stays what it was
    torch.testing.assert_close(found.mean[1].sum(1), found.mean[0].sum(1), rtol=1e-6, atol=1e-6)


def test_a_kernel_that_can_choose_computes_only_what_is_asked_for():
    seen = []

    def kernel(x1, x2=None, get=("nngp", "ntk")):
        seen.append(get)
        return ERF(x1, x2)

    x, y = draw(4, 3), draw(4, seed=1)
    kernels.predict(kernel, x, y, x, get="nngp")
    assert set(seen) == {("nngp",)}
    seen.clear()
    kernels.predict(kernel, x, y, x, covariance=False)
    assert seen == [("ntk",)] * 2


def test_repeated_examples_and_a_batch_of_one():
    x, y = draw(1, 3), draw(1, 2)
    for t in (None, 5.0):
        twice = kernels.predict(ERF, x.repeat(2, 1), y.repeat(2, 1), x, t)
        once = kernels.predict(ERF, x, y, x, t, lr=2.0)  # two equal examples pull twice as fast
        torch.testing.assert_close(twice.mean, once.mean)
        torch.testing.assert_close(twice.covariance, once.covariance, rtol=1e-6, atol=1e-12)


def test_bad_input_is_refused():
    x, y = draw(4, 3), draw(4, 2, seed=1)
    for changed, message in [
        (dict(get="both"), "get must be"),
        (dict(ridge=-1.0), "ridge must be"),
        (dict(loss="sum"), "loss must be one of"),
        (dict(t=-1.0), "times must be"),
        (dict(t=1.5, flow=False), "whole numbers"),
        (dict(t=float("inf")), "times must be finite"),
        (dict(flow=False, lr=1e3), "diverge"),
        (dict(loss="cross_entropy"), "give a time"),
        (dict(loss="cross_entropy", t=1.0), "sum to one"),
        (dict(loss="cross_entropy", t=1.0, draws=1), "draws"),
    ]:
        with pytest.raises(InputError, match=message):
            kernels.predict(ERF, x, y, x, **changed)
    with pytest.raises(InputError, match="as many targets"):
        kernels.predict(ERF, x, y[:3], x)
    with pytest.raises(InputError, match="empty"):
        kernels.predict(ERF, x, y, x[:0])
    with pytest.raises(InputError, match="kernel must be callable"):
        kernels.predict(torch.eye(4), x, y, x)
    with pytest.raises(InputError, match="gave no nngp"):
        kernels.predict(lambda a, b=None: torch.eye(4), x, y, x, get="nngp")
    with pytest.raises(InputError, match="without covariance"):
        _ = kernels.predict(ERF, x, y, x, covariance=False).std
