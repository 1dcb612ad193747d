import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from phenoscope.core.errors import InputError
from phenoscope.robust import project
from phenoscope.robust.attacks.balls import random_start, steepest

ORDER = {"inf": torch.inf, "2": 2, "1": 1}


def lengths(delta, norm):
    return delta.flatten(1).norm(p=ORDER[norm], dim=1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["inf", "2", "1"]),
    st.sampled_from([(1, 1), (3, 5), (2, 1, 4, 4), (2, 1, 40)]),
    st.floats(0.01, 5),
    st.integers(0, 10**6),
)
def test_a_projection_lies_in_the_ball_and_leaves_what_is_inside(norm, shape, eps, seed):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = project(delta, eps=eps, norm=norm)
    assert found.shape == delta.shape
    assert (lengths(found, norm) <= eps * (1 + 1e-12)).all()
    inside = lengths(delta, norm) <= eps
    assert torch.allclose(found[inside], delta[inside], atol=1e-12)
    assert torch.allclose(project(found, eps=eps, norm=norm), found, atol=1e-12)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_projection_is_the_nearest_point_that_a_general_solver_finds(norm):
    delta = torch.tensor([[0.9, -0.3, 0.5, 0.05]], dtype=torch.float64)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    limits = {
        "inf": lambda d: 0.4 - np.concatenate([d, -d]),
        "2": lambda d: np.array([0.16 - d @ d]),
        "1": lambda d: 0.4 - signs @ d,
    }
    solved = minimize(
        lambda d: ((d - delta[0].numpy()) ** 2).sum(),
        np.full(4, 0.01),
        method="SLSQP",
        constraints={"type": "ineq", "fun": limits[norm]},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.allclose(project(delta, eps=0.4, norm=norm)[0], solved.x, atol=1e-5)  # the solver's own precision


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_random_starts_fill_the_ball_uniformly(norm):
    # uniform in a ball of dimension D: the share of points within r times its radius is r^D
    x = torch.zeros(20000, 3, dtype=torch.float64)
    found = lengths(random_start(x, eps=2.0, norm=norm, generator=torch.Generator().manual_seed(0)), norm)
    assert (found <= 2 + 1e-12).all()
    for share in (0.5, 0.8):
        assert (found <= 2 * share).double().mean().item() == pytest.approx(share**3, abs=0.015)  # 4 standard errors


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_the_steepest_step_has_length_one_and_gains_the_dual_norm(norm):
    gradient = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = steepest(gradient, torch.zeros_like(gradient), norm=norm)
    dual = {"inf": 1, "2": 2, "1": torch.inf}[norm]
    assert torch.allclose(lengths(step, norm), torch.ones(8, dtype=torch.float64))
    assert torch.allclose((step * gradient).sum((1, 2)), gradient.flatten(1).norm(p=dual, dim=1))


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_no_slope_is_no_step_and_a_tiny_slope_is_a_whole_one(norm):
    flat = torch.zeros(1, 4)
    assert not steepest(flat, flat, norm=norm).any()
    assert not steepest(flat + torch.nan, flat, norm=norm).any()
    tiny = torch.tensor([[3e-30, 4e-30]])  # its squares underflow in single precision
    assert lengths(steepest(tiny, torch.zeros(1, 2), norm=norm), norm).item() == pytest.approx(1)


def test_in_the_1_norm_a_coordinate_at_the_edge_of_the_range_does_not_move():
    step = steepest(torch.tensor([[5.0, 1.0, -2.0]]), torch.tensor([[1.0, 0.5, 0.5]]), norm="1", clip=(0, 1))
    assert step.tolist() == [[0, 0, -1]]


def test_an_unknown_norm_is_named():
    with pytest.raises(InputError, match="'3'"):
        project(torch.zeros(1, 2), eps=1.0, norm="3")
