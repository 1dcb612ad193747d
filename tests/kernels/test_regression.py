import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError
from phenoscope.kernels.linearize import kernel_matrix
from phenoscope.kernels.solve import factor


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relu_kernel(a, b=None):
    return kernels.mlp_kernels(a, b, depth=2, sigma_w2=2.0, sigma_b2=0.1).nngp


def test_predictions_are_those_of_scikit_learns_kernel_ridge():
    x, y, test = draw(40, 5), draw(40, 3, seed=1), draw(11, 5, seed=2)
    k, cross = relu_kernel(x), relu_kernel(test, x)
    found = kernels.kernel_regression(k, y, cross, ridge=0.01)
    jitter = 0.01 * float(k.diagonal().mean())
    theirs = KernelRidge(alpha=jitter, kernel="precomputed").fit(k.numpy(), y.numpy())
    assert found.jitter == pytest.approx(jitter, rel=1e-12)
    np.testing.assert_allclose(found.prediction, theirs.predict(cross.numpy()), rtol=1e-9, atol=1e-10)  # float64
    np.testing.assert_allclose(found.weights, theirs.dual_coef_, rtol=1e-7, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 9), m=st.integers(1, 4), shape=st.sampled_from([(), (1,), (3,), (2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]), turned=st.booleans(),
)  # fmt: skip
def test_without_a_ridge_it_interpolates_and_keeps_the_targets_shape_and_the_matrix(n, m, shape, dtype, turned):
    root = draw(n, n + 3)
    k = (root @ root.T / n + torch.eye(n, dtype=torch.float64)).to(dtype)
    k = k.T if turned else k
    before = k.clone()
    y = draw(n, *shape, seed=n).to(dtype)
    found = kernels.kernel_regression(k, y, torch.cat([k] * m), ridge=0.0)
    assert found.prediction.shape == (n * m, *shape) and found.prediction.dtype == torch.float64
    torch.testing.assert_close(found.prediction[:n].to(dtype), y, rtol=1e-4, atol=1e-4)  # of single precision
    assert found.jitter == 0 and torch.equal(k, before)


def test_the_jitter_grows_until_the_factor_exists_and_is_reported():
    values = torch.tensor([1.0, 0.5, -1e-7, 0.2], dtype=torch.float64)  # as rounding in single precision leaves it
    basis = torch.linalg.qr(draw(4, 4))[0]
    k = basis * values @ basis.T
    mean, y = float(k.diagonal().mean()), draw(4)
    found = kernels.kernel_regression(k, y, k, ridge=1e-10)
    assert found.jitter == pytest.approx(1e-6 * mean, rel=1e-9)  # the first power of ten above 1e-7 / mean, 2.4e-7
    regular = k + found.jitter * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(regular @ found.weights, y, rtol=1e-7, atol=1e-7)  # condition 1e7
    assert kernels.kernel_regression(k, y, k, ridge=1e-3).jitter == pytest.approx(1e-3 * mean)
    twice = torch.ones(3, 3, dtype=torch.float64)
    assert 0 < kernels.kernel_regression(twice, y[:3], twice, ridge=0).jitter < 1e-10


def test_half_solve_and_determinant_belong_to_the_same_matrix():
    root = draw(6, 9)
    k, b = root @ root.T, draw(6, 2, seed=1)
    found = factor(k, ridge=0.1)
    regular = k + found.jitter * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(found.half(b).square().sum(0), (b * torch.linalg.solve(regular, b)).sum(0))
    torch.testing.assert_close(torch.tensor(found.logdet()), torch.logdet(regular).float())
    torch.testing.assert_close(found.lower.tril() @ found.lower.tril().T, regular)


def test_the_curve_is_that_of_training_a_linearized_network():
    model = models.mlp((5,), 2, width=(8, 7), activation="tanh", init="lecun", generator=0).double()
    x, y = draw(12, 5), draw(12, 2, seed=1)
    k, start = kernel_matrix(model, x), model(x).detach()
    lr = 1.0 / float(torch.linalg.eigvalsh(k)[-1])
    linear = kernels.linearize(model)
    optimizer = torch.optim.SGD(linear.offsets.parameters(), lr=lr)
    seen = []
    for _ in range(31):
        residual = linear(x) - y
        seen.append(residual.detach().norm())
        optimizer.zero_grad()
        (0.5 * residual.square().sum()).backward()
        optimizer.step()
    found = kernels.training_curve(k, y - start, lr=lr, steps=30)
    torch.testing.assert_close(found, torch.stack(seen), rtol=1e-9, atol=1e-12)  # 30 steps in float64


def test_the_curve_is_descent_itself_for_outputs_that_share_the_kernel_and_past_the_critical_rate():
    root = draw(7, 9)
    k, y = root @ root.T / 9, draw(7, 3, seed=1)
    for factor_of_critical in (0.5, 1.0, 1.1):
        lr = factor_of_critical * 2 / float(torch.linalg.eigvalsh(k)[-1])
        residual, seen = y.clone(), []
        for _ in range(21):
            seen.append(residual.norm())
            residual = residual - lr * k @ residual
        found = kernels.training_curve(k, y, lr=lr, steps=20)
        torch.testing.assert_close(found, torch.stack(seen), rtol=1e-9, atol=1e-12)


def test_the_curve_depends_on_which_eigenvectors_the_labels_lie_along():
    x = functional.normalize(draw(60, 4))
    k, y = relu_kernel(x), x[:, 0].sign()
    lr = 1 / float(torch.linalg.eigvalsh(k)[-1])
    permuted = y[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    ours, control = (kernels.training_curve(k, each, lr=lr, steps=200) for each in (y, permuted))
    assert float(ours[0]) == pytest.approx(float(control[0])) and float(control[-1]) > 2 * float(ours[-1])


@pytest.mark.parametrize(
    ("k", "y", "message"),
    [
        (torch.ones(3, 2), torch.ones(3), "square"),
        (torch.ones(0, 0), torch.ones(0), "square"),
        (torch.eye(3) * torch.nan, torch.ones(3), "not finite"),
        (torch.eye(3), torch.tensor([1.0, torch.inf, 0.0]), "targets have entries"),
        (torch.eye(3), torch.ones(4), "as many targets"),
        (torch.ones(3, 3).triu(), torch.ones(3), "not symmetric"),
        (-torch.eye(3), torch.ones(3), "positive semi-definite"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.ones(2), "positive semi-definite"),
    ],
)
def test_bad_matrices_and_targets_are_refused(k, y, message):
    with pytest.raises(InputError, match=message):
        kernels.kernel_regression(k, y, k)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="k_test must be"):
        kernels.kernel_regression(torch.eye(3), torch.ones(3), torch.ones(2, 4))
    with pytest.raises(InputError, match="ridge must be"):
        kernels.kernel_regression(torch.eye(3), torch.ones(3), torch.eye(3), ridge=-1.0)
    with pytest.raises(InputError, match="steps must be"):
        kernels.training_curve(torch.eye(3), torch.ones(3), lr=0.1, steps=-1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts memory otherwise")
def test_no_more_than_the_matrix_and_one_copy_of_it_is_held():
    program = """
import torch
from phenoscope.kernels import kernel_regression

def peak():  # of this process; what getrusage tells includes the one that started it
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

kernel_regression(torch.eye(5), torch.ones(5), torch.eye(5))
before = peak()
k = torch.ones(2500, 2500, dtype=torch.float64)
k.diagonal().add_(1)
kernel_regression(k, torch.ones(2500), torch.ones(1, 2500))
print((peak() - before) / k.nbytes)
"""
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # every thread has buffers of its own
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=alone)
    assert 1.5 < float(run.stdout) < 2.4  # 2, and the buffers of the library
