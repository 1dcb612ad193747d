import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope import data, kernels, theory
from phenoscope.core.errors import InputError


def unit(n, d, seed=0):
    return data.sphere(n, d, dtype=torch.float64, generator=seed)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 8), m=st.integers(1, 8), d=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_gram_matrix_is_that_of_the_arc_cosine_kernel(n, m, d, seed):
    x, z = unit(n, d, seed), unit(m, d, seed + 1)
    cosine = (x @ z.T).clamp(-1, 1)
    expected = cosine * theory.gaussian_moments("relu", 1.0, cosine, derivative=True)
    # arccos loses half the digits next to a cosine of 1, and the matrix does not
    torch.testing.assert_close(kernels.two_layer_gram(x, z), expected, rtol=0, atol=2e-8)
    torch.testing.assert_close(kernels.two_layer_gram(x).diagonal(), torch.full((n,), 0.5, dtype=torch.float64))


def test_the_gram_matrix_is_the_mean_over_random_units():
    x, draws = unit(4, 5), 1_000_000
    generator = torch.Generator().manual_seed(1)
    on = (torch.randn(draws, 5, dtype=torch.float64, generator=generator) @ x.T > 0).double()
    together = on.T @ on / draws
    error = (x @ x.T).abs() * (together * (1 - together) / draws).sqrt()
    gap = (kernels.two_layer_gram(x) - (x @ x.T) * together).abs()
    assert (gap <= 4 * error + 1e-12).all()  # ten entries: beyond 4 standard errors once in 1500 times, and seeded


def test_nearly_parallel_inputs_keep_all_digits():
    x = unit(2, 20)
    side = x[1] - (x[0] @ x[1]) * x[0]
    for angle in (1e-3, 1e-6):
        pair = torch.stack([x[0], math.cos(angle) * x[0] + math.sin(angle) * side / side.norm()])
        values = torch.linalg.eigvalsh(kernels.two_layer_gram(pair))
        # (1 - cos a (1 - a / pi)) / 2
        exact = (angle / math.pi * math.cos(angle) + 2 * math.sin(angle / 2) ** 2) / 2
        assert float(values[0]) == pytest.approx(exact, rel=1e-8)


def test_opposite_inputs_share_no_unit():
    x = unit(1, 3)
    gram = kernels.two_layer_gram(torch.cat([x, -x]))
    torch.testing.assert_close(gram, 0.5 * torch.eye(2, dtype=torch.float64))


def test_other_norms_are_refused_or_normalized():
    x = unit(5, 3).reshape(5, 1, 3)
    with pytest.raises(InputError, match="input 0 has norm 3"):
        kernels.two_layer_gram(3 * x)
    torch.testing.assert_close(kernels.two_layer_gram(3 * x, normalize=True), kernels.two_layer_gram(x))
    kernels.two_layer_gram(x.float())
    with pytest.raises(InputError, match="no direction"):
        kernels.two_layer_gram(0 * x, normalize=True)
    with pytest.raises(InputError, match="3 and 2 features"):
        kernels.two_layer_gram(x, unit(2, 2))
    with pytest.raises(InputError, match="input 0 has norm nan"):
        kernels.two_layer_gram(x * torch.nan)


def test_complexity_is_the_quadratic_form_of_the_inverse():
    x, y = unit(20, 6), torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = kernels.two_layer_gram(x)
    expected = (2 * torch.einsum("nl,nm,ml->l", y, torch.linalg.inv(gram), y) / 20).sqrt()
    torch.testing.assert_close(kernels.label_complexity(x, y), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(kernels.label_complexity(x, y[:, 0]), expected[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(kernels.label_complexity(x, y, kernel=gram), expected, rtol=1e-10, atol=0)
    # |x| = 1: Theta of one hidden layer with scale 1 / d is the sum of this kernel and of the second layer's, over d
    of_mlp = kernels.label_complexity(x, y, kernel=functools.partial(kernels.mlp_kernels, depth=1))
    assert (of_mlp < expected * math.sqrt(6)).all()


@pytest.mark.parametrize("power", [1, 2, 4])
def test_complexity_of_a_power_stays_below_its_bound(power):
    n, d = 100, 6
    x, beta = unit(n, d), torch.randn(2, d, generator=torch.Generator().manual_seed(3)).double()
    y = 0.7 * (x @ beta[0]) ** power - 0.2 * (x @ beta[1])
    bound = kernels.polynomial_complexity([0.7, -0.2], beta, [power, 1], n=n)
    found = float(kernels.label_complexity(x, y))
    assert 0.05 * bound < found < bound


def test_random_labels_are_more_complex_than_those_of_a_line():
    x = unit(100, 6)
    line, noise = torch.sign(x[:, 0]), torch.sign(torch.randn(100, generator=torch.Generator().manual_seed(0)))
    plain, random = kernels.label_complexity(x, torch.stack([line, noise.double()], 1))
    assert random > 1.3 * plain


def test_bounds_refuse_odd_powers():
    with pytest.raises(InputError, match="1 or even, not 3"):
        kernels.polynomial_complexity([1.0], [[1.0]], [3], n=5)
    with pytest.raises(InputError, match="one entry for each term"):
        kernels.polynomial_complexity([1.0, 2.0], [[1.0]], [1], n=5)


def test_inputs_given_twice_are_named():
    x = unit(12, 5)
    x[9] = x[2]
    for call in (kernels.label_complexity, functools.partial(kernels.convergence_certificate, width=10)):
        with pytest.raises(InputError, match="inputs 2 and 9"):
            call(x, torch.ones(12))
    with pytest.raises(InputError, match="inputs 2 and 9"):
        kernels.label_complexity(x, torch.ones(12), kernel=kernels.two_layer_gram(x))


def test_shapes_that_do_not_match_are_refused():
    x = unit(5, 3)
    with pytest.raises(InputError, match="5 inputs need"):
        kernels.label_complexity(x, torch.ones(4))
    with pytest.raises(InputError, match="not finite"):
        kernels.label_complexity(x, torch.full((5,), torch.nan))
    with pytest.raises(InputError, match="outputs must be 5"):
        kernels.convergence_certificate(x, torch.ones(5), width=4, outputs=torch.ones(3))
    with pytest.raises(InputError, match="delta"):
        kernels.convergence_certificate(x, torch.ones(5), width=4, delta=0.0)


def test_the_certificate_says_what_the_theorem_says():
    n, width = 15, 256
    x, y = unit(n, 8), torch.ones(n, dtype=torch.float64)
    found = kernels.convergence_certificate(x, y, width=width, outputs=3 * y, delta=0.2)
    values = torch.linalg.eigvalsh(kernels.two_layer_gram(x))
    assert found.smallest == pytest.approx(float(values[0])) and found.largest == pytest.approx(float(values[-1]))
    assert found.theorem_width == pytest.approx(n**6 / (found.smallest**4 * 0.2**3))
    assert found.radius == pytest.approx(4 * math.sqrt(n) * 2 * math.sqrt(n) / (math.sqrt(width) * found.smallest))
    assert found.factor == pytest.approx(1 - 0.25 * found.smallest / found.largest)
    wider = kernels.convergence_certificate(x, y, width=4 * width, outputs=3 * y)
    assert wider.radius == pytest.approx(found.radius / 2)
    # |y - f_0|^2 is n + n / 2 on average
    assert kernels.convergence_certificate(x, y, width=width).radius == pytest.approx(found.radius * math.sqrt(1.5 / 4))
    pair = data.separation(x, opposite=False)
    assert (found.pair, found.angle) == ((pair.i, pair.j), pair.angle)


def test_the_expected_residual_at_the_start_is_that_of_random_networks():
    x, m, nets = unit(10, 6), 64, 400
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(nets, m, 6, dtype=torch.float64, generator=generator)
    a = torch.randn(nets, m, dtype=torch.float64, generator=generator).sign()
    f = torch.einsum("km,kmn->kn", a, torch.relu(w @ x.T)) / math.sqrt(m)
    squares = (1 - f).square().sum(1)
    assert float(squares.mean()) == pytest.approx(15, abs=4 * float(squares.std()) / math.sqrt(nets))
