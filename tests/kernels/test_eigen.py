import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope import data, kernels, models
from phenoscope.core.errors import InputError

CUBE = data.hypercube(bits=6).inputs.double()
NTK = functools.partial(kernels.mlp_kernels, depth=2, sigma_w2=2.0, sigma_b2=0.1)


def pool(size=40, seed=0):
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.exp(-(torch.cdist(x, x) ** 2) / 2), x


def test_eigenfunctions_are_orthonormal_on_the_pool_and_the_target_is_their_sum():
    kernel, x = pool()
    found = kernels.eigensystem(kernel, x)
    size = len(kernel)
    torch.testing.assert_close(found.functions.T @ found.functions / size, torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(kernel @ found.functions / size, found.functions * found.values, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.functions @ found.coefficients, x)
    assert (found.values.diff() <= 0).all() and (found.values >= 0).all()
    torch.testing.assert_close(found.values.sum(), kernel.trace() / size)


def test_parities_are_eigenfunctions_on_the_cube_with_the_multiplicities_of_their_degree():
    kernel = NTK(CUBE).ntk
    of_degree = [kernels.eigensystem(kernel, CUBE[:, :k].prod(1)) for k in range(7)]
    values = of_degree[0].values
    levels = []
    for system in of_degree:  # a parity lies within the modes of one eigenvalue
        inside = system.coefficients.abs() > 1e-8
        assert float(values[inside].max() / values[inside].min()) == pytest.approx(1, rel=1e-6)
        levels.append(float(values[inside][0]))
    for k, level in enumerate(levels):
        assert int(((values / level - 1).abs() < 1e-6).sum()) == math.comb(6, k)


def test_equal_eigenvalues_are_all_learned_to_n_over_m():
    v = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kernels.eigenlearning(torch.full((50,), 3.0), v, 20)
    torch.testing.assert_close(found.learnabilities, torch.full((50,), 0.4, dtype=torch.float64), rtol=1e-12, atol=0)
    assert found.test_mse == pytest.approx(0.6 * float(v.square().sum()), rel=1e-10)
    assert found.e0 == pytest.approx(1 / 0.6, rel=1e-10)  # ridgeless isotropic regression diverges as 1 / (1 - n / M)
    noisy = kernels.eigenlearning(torch.full((50,), 3.0), v, 20, noise_var=0.5)
    assert noisy.test_mse == pytest.approx(found.test_mse + 0.5 / 0.6, rel=1e-10)
    assert found.train_mse == 0


@settings(max_examples=60, deadline=None)
@given(
    logs=st.lists(st.floats(-12, 12), min_size=2, max_size=30), share=st.floats(0.05, 0.95),
    ridge=st.one_of(st.just(0.0), st.floats(1e-6, 10)),
)  # fmt: skip
def test_learned_shares_add_up_to_the_samples_whatever_the_spectrum(logs, share, ridge):
    values = torch.tensor(logs, dtype=torch.float64).exp()
    n = max(1, min(len(logs) - 1, round(share * len(logs))))
    found = kernels.eigenlearning(values, torch.ones(len(logs)), n, ridge=ridge)
    total = float(found.learnabilities.sum())
    assert total + ridge / found.kappa == pytest.approx(n, rel=1e-6)
    assert total <= n * (1 + 1e-9) and found.e0 >= 1 and found.test_mse >= 0


def test_multiplicities_stand_for_repeated_modes():
    values, c, times = torch.tensor([3.0, 1.0, 0.1]), torch.tensor([[0.5], [1.0], [2.0]]), torch.tensor([1, 4, 9])
    short = kernels.eigenlearning(values, c, 5, ridge=0.2, noise_var=0.1, multiplicities=times)
    long = kernels.eigenlearning(
        values.repeat_interleave(times), c.repeat_interleave(times, 0), 5, ridge=0.2, noise_var=0.1
    )
    for name in ("kappa", "e0", "test_mse", "train_mse"):
        assert getattr(short, name) == pytest.approx(getattr(long, name), rel=1e-12)


def test_more_samples_than_modes_learn_everything_and_fit_noise():
    values, c = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    found = kernels.eigenlearning(values, c, 10, noise_var=1.0)
    assert found.kappa == 0 and found.learnabilities.tolist() == [1, 1, 0]
    assert found.test_mse == pytest.approx(10 / 8)  # least squares on two variables
    assert kernels.eigenlearning(values, c, 10).test_mse == 0
    assert math.isinf(kernels.eigenlearning(values, c, 2, noise_var=1.0).test_mse)
    assert kernels.eigenlearning(values, torch.tensor([1.0, 1.0, 2.0]), 10).test_mse == pytest.approx(4 * 10 / 8)


@pytest.mark.parametrize("of", ["ntk", "gauss", "linear"])
def test_every_kernel_learns_as_many_modes_as_there_are_samples(of):
    # exact for each draw: the sum over a basis of <f_hat, phi> is the trace of the smoother
    x = CUBE + 0.1 * torch.randn(CUBE.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = {"ntk": NTK(x).ntk, "gauss": torch.exp(-(torch.cdist(x, x) ** 2) / 12), "linear": x @ x.T}[of]
    system = kernels.eigensystem(kernel, x[:, 0])
    n = 5 if of == "linear" else 20
    for seed in range(3):
        rows = torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:n]
        learned = kernel[:, rows] @ torch.linalg.solve(kernel[rows][:, rows], system.functions[rows])
        assert float((learned * system.functions).mean(0).sum()) == pytest.approx(n, abs=1e-6)
    assert float(kernels.eigenlearning(system.values, system.coefficients, n).learnabilities.sum()) == pytest.approx(n)


def test_the_error_of_regression_is_the_predicted_one_with_ridge_and_noise():
    # 60 draws are sure of a mean error to about 4 %; n is a seventh of the pool
    x = data.digits().train[0][:420].flatten(1).double()
    y = data.digits().train[1][:420]
    found = kernels.predict_generalization(
        kernels.mlp_kernels(x, depth=2, sigma_w2=2.0).ntk, None, y, (20, 60), ridges=(0.0, 5.0), noise_var=0.02,
        repeats=60, generator=0,
    )  # fmt: skip
    np.testing.assert_allclose(found.measured_mse.mean("repeat") / found.test_mse, 1, atol=0.15)
    np.testing.assert_allclose(found.measured_learnability.mean("repeat"), found.target_learnability, atol=0.05)
    # eigenvalues of K in place of K / M would make the ridge M times too small
    wrong = kernels.eigenlearning(420 * torch.as_tensor(found.eigenvalue.values), torch.ones(420), 60, ridge=5.0)
    assert float(wrong.learnabilities.sum()) > float(found.learnability.sel(ridge=5, n=60).sum()) + 1


def test_the_error_on_training_samples_is_predicted_too():
    x = data.digits().train[0][:300].flatten(1).double()
    y = x[:, 20:21]
    kernel = kernels.mlp_kernels(x, depth=1, sigma_w2=2.0).ntk
    system, errors = kernels.eigensystem(kernel, y), []
    for seed in range(40):
        rows = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:30]
        gram = kernel[rows][:, rows]
        errors.append((gram @ torch.linalg.solve(gram + 2 * torch.eye(30), y[rows]) - y[rows]).square().mean())
    found = kernels.eigenlearning(system.values, system.coefficients, 30, ridge=2.0)
    assert float(torch.stack(errors).mean()) == pytest.approx(found.train_mse, rel=0.15)


def test_the_users_network_a_limit_and_a_matrix_are_all_kernels():
    x, y = (part[:20] for part in data.digits().train)
    network = models.mlp((1, 8, 8), 10, width=16, generator=0)
    before = [p.clone() for p in network.parameters()]
    ask = functools.partial(kernels.predict_generalization, x=x, targets=y, ns=(3, 6))
    theirs, matrix = ask(network), ask(kernels.empirical_ntk(network, x, outputs="trace"))
    np.testing.assert_allclose(theirs.test_mse, matrix.test_mse)
    limit = functools.partial(kernels.mlp_kernels, depth=1)
    np.testing.assert_allclose(ask(limit).test_mse, ask(limit(x).ntk).test_mse)
    np.testing.assert_allclose(ask(limit, get="nngp").test_mse, ask(limit(x).nngp).test_mse)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_classes_become_vectors_of_mean_zero_and_the_same_seed_gives_the_same_draws():
    kernel, _ = pool()
    y = torch.arange(40) % 3
    hot = nn.functional.one_hot(y).double()
    ask = functools.partial(kernels.predict_generalization, kernel, None, ns=(4,), repeats=2)
    assert ask(targets=y, generator=1).identical(ask(targets=hot - hot.mean(0), generator=1))
    assert not ask(targets=y, generator=1).identical(ask(targets=y, generator=2))


def test_without_ridge_more_samples_than_modes_are_regressed_by_least_squares():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kernels.predict_generalization(x @ x.T, None, x[:, 0], (10,), repeats=3, generator=0)
    assert found.kappa.item() == 0 and found.measured_mse.max() < 1e-15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.eigensystem(torch.eye(3)[:2], torch.ones(2)), "square"),
        (lambda: kernels.eigensystem(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.ones(2)), "symmetric"),
        (lambda: kernels.eigensystem(torch.eye(2) * float("nan"), torch.ones(2)), "finite"),
        (lambda: kernels.eigensystem(torch.eye(2), torch.tensor([0, 1])), "real"),
        (lambda: kernels.eigenlearning(torch.ones(3), torch.ones(2), 1), "length"),
        (lambda: kernels.eigenlearning(torch.ones(3), torch.ones(3), 0), "at least 1"),
        (lambda: kernels.eigenlearning(torch.ones(3), torch.ones(3), 1, ridge=-1), "at least 0"),
        (lambda: kernels.eigenlearning(-torch.ones(3), torch.ones(3), 1), "above zero"),
        (lambda: kernels.predict_generalization(torch.eye(3), None, torch.ones(3), (4,)), "between 1"),
        (lambda: kernels.predict_generalization(nn.Linear(1, 1), None, torch.ones(3), (1,)), "pool"),
        (lambda: kernels.predict_generalization(3, torch.ones(3, 1), torch.ones(3), (1,)), "int"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
