import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_triangular

from phenoscope.core.errors import InputError
from phenoscope.theory import exact_interpolator


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_two_weights_a_point_and_one_a_dimension_fit_random_values():
    x, y = draw(200, 64), draw(200, seed=1)
    network = exact_interpolator(x, y, generator=0)
    assert sum(p.numel() for p in network.parameters()) == 2 * 200 + 64
    with torch.no_grad():
        assert float((network(x) - y).abs().max()) < 1e-6


def test_between_the_points_it_is_the_line_that_numpy_draws():
    x, y = draw(30, 4), draw(30, seed=1)
    network = exact_interpolator(x, y, generator=0)
    with torch.no_grad():
        along, elsewhere = x @ network.direction, draw(500, 4, seed=2)
        place = elsewhere @ network.direction
        inside = (place > along.min()) & (place < along.max())
        order = along.argsort()
        expected = np.interp(place[inside], along[order], y[order])
        # rounding of slopes, which are about 1 over the smallest gap, here 1e-3
        np.testing.assert_allclose(network(elsewhere)[inside], expected, atol=1e-9)
    assert inside.sum() > 100 and float(along.max() - along.min()) == pytest.approx(1)


def test_its_weights_solve_the_triangular_system_of_the_theorem():
    x, y = draw(12, 5), draw(12, seed=1)
    network = exact_interpolator(x, y, generator=0)
    with torch.no_grad():
        place, order = (x @ network.direction).sort()
        system = (place[:, None] - network.thresholds).relu().numpy()
    assert (np.triu(system, 1) == 0).all() and (np.diag(system) > 0).all()
    expected = solve_triangular(system, y[order].numpy(), lower=True)
    np.testing.assert_allclose(network.weights.detach(), expected, rtol=1e-6, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from([torch.float32, torch.float64]))
def test_any_number_of_points_in_any_shape_is_fitted(n, d, dtype):
    x, y = draw(n, 1, d).to(dtype), draw(n, seed=1).to(dtype)
    network = exact_interpolator(x, y, generator=0)
    with torch.no_grad():
        assert network(x).shape == (n,)
        torch.testing.assert_close(network(x), y.double(), rtol=0, atol=1e-7)


def test_labels_are_numbers_and_a_seed_repeats_the_draw():
    x, y = draw(20, 3), torch.arange(20) % 10
    one, same = (exact_interpolator(x, y, generator=3) for _ in range(2))
    assert torch.equal(one.direction, same.direction)
    assert torch.equal(one(x).round().long(), y)


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]]), torch.arange(3.0), "same"),
        (torch.ones(2, 2), torch.arange(2.0), "same"),
        (torch.eye(3), torch.arange(2.0), "values"),
        (torch.arange(3.0), torch.arange(3.0), "points"),
        (torch.tensor([[float("nan")]]), torch.zeros(1), "finite"),
    ],
)
def test_points_that_no_function_fits_are_refused(x, y, word):
    with pytest.raises(InputError, match=word):
        exact_interpolator(x, y, generator=0)
