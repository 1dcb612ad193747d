import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from torch import nn
from torch.nn import functional

from phenoscope import theory
from phenoscope.core.errors import InputError

NUMPY = {
    "tanh": (np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "erf": (special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "hardtanh": (lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) < 1) * 1.0),
    "gelu": (lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)),
}


def density(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def reference(function, q, power):
    """scipy's adaptive quadrature, told where the function bends."""
    root = math.sqrt(q)
    points = [0.0, *(sign * at / root for sign in (1, -1) for at in (0.5, 1, 3) if at / root < 12)]
    return integrate.quad(
        lambda z: density(z) * float(function(root * z)) ** power, -12, 12, points=points, limit=400, epsabs=1e-13
    )[0]


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("q", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("power", [1, 2, 4])
def test_single_moments_are_those_of_adaptive_quadrature(name, q, power):
    for derivative in (False, True):
        found = theory.gaussian_moments(name, q, power=power, derivative=derivative)
        expected = reference(NUMPY[name][derivative], q, power)
        assert float(found) == pytest.approx(expected, rel=1e-8, abs=1e-10), (derivative, name)  # the reference's own


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(("q1", "q2", "c"), [(1.0, 1.0, 0.3), (0.2, 5.0, -0.7), (2.0, 2.0, 0.999), (3.0, 0.5, 0.0)])
@pytest.mark.parametrize("derivative", [False, True])
def test_pair_moments_are_those_of_a_fine_grid(name, q1, q2, c, derivative):
    z = np.linspace(-8, 8, 1601) + 1e-7  # the midpoint rule: errors of 1e-5 where the function jumps
    f = NUMPY[name][derivative]
    weight = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    inner = f(math.sqrt(q2) * (c * z[:, None] + math.sqrt(1 - c * c) * z[None, :])) @ weight
    expected = (weight * f(math.sqrt(q1) * z)) @ inner
    found = theory.gaussian_moments(name, q1, c * math.sqrt(q1 * q2), q2, derivative=derivative)
    tolerance = 2e-3 if derivative and name in ("relu", "hardtanh") else 1e-5
    assert float(found) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", ["relu", "erf", "abs"])
def test_closed_forms_and_quadrature_agree(name):
    known = theory.activation(name)
    hidden = theory.Activation("hidden", known.function, known.derivative, known.kinks)  # knows no closed form
    q1, q2 = torch.tensor([0.3, 2.0, 9.0]), torch.tensor([1.0, 0.1, 9.0])
    k = torch.tensor([0.2, -0.3, 8.9])
    for derivative in (False, True):
        a, b = (theory.gaussian_moments(act, q1, k, q2, derivative=derivative) for act in (known, hidden))
        # panels end at the kink of u and of v, not where both move together: about 1e-5 for the derivative
        torch.testing.assert_close(a, b, rtol=3e-4 if derivative and name != "erf" else 1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["tanh", "relu", "gelu", "linear"]),
    st.floats(0.01, 20),
    st.floats(0.01, 20),
    st.floats(-1, 1),
)
def test_pair_moments_are_symmetric_and_bounded(name, q1, q2, c):
    k = c * math.sqrt(q1 * q2)
    one, other = theory.gaussian_moments(name, q1, k, q2), theory.gaussian_moments(name, q2, k, q1)
    assert float(one) == pytest.approx(float(other), abs=1e-7 * (1 + q1 + q2))
    bound = math.sqrt(
        float(theory.gaussian_moments(name, q1, power=2)) * float(theory.gaussian_moments(name, q2, power=2))
    )
    assert abs(float(one)) <= bound * (1 + 1e-7) + 1e-9  # Cauchy and Schwarz


def test_a_full_correlation_gives_the_second_moment():
    for name in NUMPY:
        pair = theory.gaussian_moments(name, 1.7, 1.7)
        assert float(pair) == pytest.approx(float(theory.gaussian_moments(name, 1.7, power=2)), rel=1e-8)


def test_arguments_broadcast_and_chunks_do_not_show():
    q = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    c = torch.linspace(-0.4, 0.4, 9, dtype=torch.float64)
    whole = theory.gaussian_moments("tanh", q, c, q)
    assert whole.shape == (20, 9)
    assert float(whole[3, 4]) == pytest.approx(float(theory.gaussian_moments("tanh", q[3, 0], c[4])), abs=1e-15)


def test_activations_come_by_name_module_or_function():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    for given_as in ("tanh", nn.Tanh, nn.Tanh(), torch.tanh, lambda v: torch.tanh(v)):
        act = theory.activation(given_as)
        torch.testing.assert_close(act.function(x), torch.tanh(x))
        torch.testing.assert_close(act.derivative(x), 1 - torch.tanh(x) ** 2)
    assert theory.activation(nn.LeakyReLU(0.3)).slopes == (0.3, 1.0)
    assert theory.activation(functional.relu).slopes == (0.0, 1.0)
    assert theory.activation(nn.ReLU6()).kinks == (0.0, 6.0)
    for name in ("linear", "sigmoid", "gelu", "silu", "softplus", "elu", "selu", "sin", "hardtanh", "leaky_relu"):
        act, at = theory.activation(name), torch.tensor([-1.7, -0.4, 0.3, 2.1], dtype=torch.float64)
        h = 1e-6
        slope = (act.function(at + h) - act.function(at - h)) / (2 * h)
        torch.testing.assert_close(act.derivative(at), slope, rtol=1e-7, atol=1e-8)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="no activation 'thanh'"):
        theory.activation("thanh")
    with pytest.raises(InputError, match="parameters of its own"):
        theory.activation(nn.PReLU())
    with pytest.raises(InputError, match="not negative"):
        theory.gaussian_moments("tanh", -1.0)
    with pytest.raises(InputError, match="covariance is larger"):
        theory.gaussian_moments("tanh", 1.0, 1.5)
    with pytest.raises(InputError, match="power"):
        theory.gaussian_moments("tanh", 1.0, 0.5, power=2)
    with pytest.raises(InputError, match="shape of its input"):
        theory.gaussian_moments(lambda x: x.sum(), 1.0, derivative=True)


@pytest.mark.parametrize("act", ["tanh", "relu", "erf", "elu"])
def test_no_pairs_have_no_moments(act):
    none = torch.zeros(3, 0, dtype=torch.float64)
    assert theory.gaussian_moments(act, torch.ones(3, 1), none, none[:1]).shape == (3, 0)
