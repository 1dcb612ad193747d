import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope import theory
from phenoscope.theory.gaussian.activations import activation
from phenoscope.theory.gaussian.hermite import series
from phenoscope.theory.gaussian.moments import _pair

VARIANCES = torch.tensor([0.05, 1.0, 3.0, 40.0], dtype=torch.float64)
CORRELATIONS = torch.tensor([-0.99, -0.3, 0.0, 0.5, 0.9, 1.0], dtype=torch.float64)
GRID = (VARIANCES[:, None, None], VARIANCES[None, :, None], CORRELATIONS.expand(4, 4, 6))


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu", "sigmoid", "softplus", "elu", "hardtanh"])
@pytest.mark.parametrize("derivative", [False, True])
def test_where_it_is_trusted_the_series_is_the_quadrature(name, derivative):
    act = activation(name)
    found, trusted = series(act, *GRID, derivative=derivative)
    assert trusted.float().mean() > 0.25
    expected = _pair(act, *torch.broadcast_tensors(*GRID), derivative)
    sizes = [theory.gaussian_moments(act, q, power=2, derivative=derivative) for q in GRID[:2]]
    error = ((found - expected).abs() / (sizes[0] * sizes[1]).sqrt())[trusted]
    assert error.max() < 2e-11  # what the series promises is 1e-11, and the panels err too


@settings(max_examples=25, deadline=None)
@given(q1=st.floats(0, 60), q2=st.floats(0, 60), c=st.floats(-1, 1))
def test_the_sine_has_its_closed_form(q1, q2, c):
    # E sin u sin v = exp(-(q1 + q2) / 2) sinh k; absolute: values are at most 1/2
    k = c * math.sqrt(q1 * q2)
    expected = 0.5 * (math.exp(k - (q1 + q2) / 2) - math.exp(-k - (q1 + q2) / 2))
    assert float(theory.gaussian_moments("sin", q1, k, q2)) == pytest.approx(expected, abs=1e-10)


def test_a_series_that_has_not_converged_is_not_trusted():
    step = activation(lambda x: torch.tanh(50 * x))
    one = torch.ones(1, dtype=torch.float64)
    found, trusted = series(step, one, one, one, derivative=False)
    assert not trusted.any()
    exact = theory.gaussian_moments(step, 1.0, power=2)
    assert abs(float(found - exact)) > 1e-3  # it would be wrong
    assert series(step, one, one, 0.5 * one, derivative=False)[1].all()  # but its powers vanish here


def test_thousands_of_pairs_need_no_quadrature_of_their_own():
    calls = []

    def act(x):
        calls.append(x.numel())
        return torch.tanh(x)

    x = torch.linspace(-1, 1, 3000, dtype=torch.float64).view(300, 10)
    k = x @ x.T / 10
    q = k.diagonal()
    found = theory.gaussian_moments(act, q[:, None], k, q)
    assert sum(calls) < 5 * 3000 * 300  # about 2,000 values an example, not 80,000 a pair
    assert torch.allclose(found, theory.gaussian_moments("tanh", q[:, None], k, q), rtol=1e-12, atol=0)
