import math

import pytest
import torch
from scipy import stats as scipy_stats

from phenoscope import kernels
from phenoscope.core.errors import InputError

SIGNS = torch.tensor([[1.0, 0.3, -0.5], [0.3, 2.0, 0.4], [-0.5, 0.4, 0.7]], dtype=torch.float64)


def positive(*vectors):
    return torch.stack([v > 0 for v in vectors]).all(0).double()


def asin_of(i, j):
    return math.asin(float(SIGNS[i, j] / (SIGNS[i, i] * SIGNS[j, j]).sqrt()))


def test_quasi_random_means_are_the_known_orthant_probabilities():
    def program(lines):
        g = lines.inputs(SIGNS)
        return [lines.apply(positive, g[0], g[1]), lines.apply(lambda a: (a > 0).double(), g[2])]

    found = kernels.netsor(program)
    two = 0.25 + asin_of(0, 1) / (2 * math.pi)
    three = 0.125 + (asin_of(0, 1) + asin_of(0, 2) + asin_of(1, 2)) / (4 * math.pi)
    assert found.dtype == torch.float64
    assert found[0, 0].item() == pytest.approx(two, abs=1e-3)  # 2^14 points; the integrand jumps
    assert found[0, 1].item() == pytest.approx(three, abs=1e-3)
    assert found[1, 1].item() == pytest.approx(0.5, abs=1e-3)


def test_a_mean_is_carried_along():
    def program(lines):
        a, b = lines.inputs(SIGNS[:2, :2], mean=torch.tensor([0.7, -0.2]))
        both = lines.combine([a, b], [1.0, 2.0])
        assert lines.moment(both) == pytest.approx(0.3)
        assert lines.moment(a, b) == pytest.approx(0.3 - 0.14)
        assert lines.moment(lines.apply("relu", a)) == pytest.approx(expected, abs=2e-4)
        assert lines.moment(lines.apply("relu", a), lines.apply("linear", a)) == pytest.approx(squared, abs=2e-4)
        return [both]

    expected = 0.7 * scipy_stats.norm.cdf(0.7) + scipy_stats.norm.pdf(0.7)
    squared = 1.49 * scipy_stats.norm.cdf(0.7) + 0.7 * scipy_stats.norm.pdf(0.7)  # E relu(a) a
    assert kernels.netsor(program).item() == pytest.approx(1 + 4 * 2 + 4 * 0.3 + 0.3**2)


def shared(first, second, act):
    """Two layers of two inputs; the second product shares a matrix with the first if the names are the same."""

    def program(lines):
        x = lines.inputs(SIGNS[:2, :2])
        h = [lines.apply(act, lines.combine([each, lines.matmul(first, each)], [1.0, 0.5])) for each in x]
        return [*h, *(lines.apply(act, lines.combine([lines.matmul(second, each), x[0]], [1.0, -1.0])) for each in h)]

    return program


def test_one_matrix_used_twice_is_not_two_matrices():
    tied, untied = (kernels.netsor(shared("A", name, "relu")) for name in ("A", "B"))
    torch.testing.assert_close(tied[:2, :2], untied[:2, :2])
    assert float((tied - untied).abs().max()) > 0.05
    width, nets = 600, 60
    draw = torch.Generator().manual_seed(0)
    x = torch.linalg.cholesky(SIGNS[:2, :2]).float() @ torch.randn(nets, 2, width, generator=draw)
    for program, again in ((tied, True), (untied, False)):
        a, b = torch.randn(2, nets, width, width, generator=draw) / width**0.5
        h = torch.relu(x + 0.5 * x @ a.mT)
        states = torch.cat([h, torch.relu(h @ (a if again else b).mT - x[:, :1])], 1)
        found = (states @ states.mT / width).mean(0).double()
        # one net's moments spread by some 6 percent at this width, the mean of 60 by under one; 1/width beside it
        assert float((found - program).norm() / program.norm()) < 0.02


def test_a_function_without_a_closed_form_agrees_with_the_closed_form():
    exact, sampled = (kernels.netsor(shared("A", "A", act)) for act in ("erf", lambda x: torch.erf(x)))
    torch.testing.assert_close(sampled, exact, rtol=0, atol=2e-4)  # expectations over up to four dimensions
    other = kernels.netsor(shared("A", "A", lambda x: torch.erf(x)), generator=1)
    assert 0 < float((other - sampled).abs().max()) < 2e-4
    torch.testing.assert_close(kernels.netsor(shared("A", "A", lambda x: torch.erf(x))), sampled, rtol=0, atol=0)
    fine = kernels.netsor(shared("A", "A", lambda x: torch.erf(x)), points=2**17)
    assert float((fine - exact).abs().max()) < float((sampled - exact).abs().max())


def test_vectors_that_follow_from_others_and_constants_are_exact():
    def program(lines):
        a, same = lines.inputs(torch.ones(2, 2))
        (nothing,) = lines.inputs(torch.zeros(1, 1), mean=torch.tensor([2.0]))
        return [lines.apply(lambda x, y, c: torch.sin(x - y) + c, a, same, nothing)]

    assert kernels.netsor(program, sigma_v2=3.0).item() == pytest.approx(12.0, rel=1e-9)


def test_more_dimensions_than_are_made_at_once():
    def program(lines):
        x = lines.inputs(torch.eye(40, dtype=torch.float64))
        return [lines.apply(lambda *g: torch.stack(g).square().mean(0), *x)]

    # E (mean of 40 squares)^2 = 1 + 2/40; half a percent is what points in 40 dimensions leave
    assert kernels.netsor(program).item() == pytest.approx(1.05, rel=5e-3)


def test_moments_are_numbers_for_later_lines():
    def program(lines):
        (x,) = lines.inputs(torch.full((1, 1), 4.0))
        h = lines.apply("relu", x)
        scale = lines.moment(h, h) ** -0.5
        return [lines.apply(lambda values: values * scale, h)]

    assert kernels.netsor(program).item() == pytest.approx(1, rel=1e-4)


def test_bad_programs_are_refused():
    def refused(program, message, **settings):
        with pytest.raises(InputError, match=message):
            kernels.netsor(program, **settings)

    x = torch.eye(2)
    refused(lambda lines: [], "returns no vectors")
    refused(lambda lines: lines.inputs(x), "power of two, not 100", points=100)
    refused(lambda lines: lines.inputs(torch.ones(2, 3)), "square covariance")
    refused(lambda lines: lines.inputs(x, mean=torch.ones(3)), "2 vectors cannot have 3 means")
    refused(lambda lines: [lines.combine([lines.apply("relu", lines.inputs(x)[0])], [1.0])], "only Gaussian vectors")
    refused(lambda lines: [lines.combine(lines.inputs(x), [1.0])], "2 vectors cannot be combined with 1")
    refused(lambda lines: [lines.apply("relu", *lines.inputs(x))], "takes one vector, not 2")
    refused(lambda lines: [lines.apply("relu")], "at least one vector")
    refused(lambda lines: [lines.apply(lambda a, b: (a + b).mean(), *lines.inputs(x))], "one finite number")
    refused(lambda lines: [lines.apply(lambda a, b: a / (b - b), *lines.inputs(x))], "one finite number")
    refused(lambda lines: [torch.ones(3)], "earlier lines of this program")

    def two_variances(lines):
        a, b = lines.inputs(x)
        return [lines.matmul("A", a), lines.matmul("A", b, sigma_w2=2.0)]

    refused(two_variances, "'A' was used with sigma_w2 = 1.0")
