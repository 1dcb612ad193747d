import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope import theory
from phenoscope.core.errors import InputError


def correlation_map(act, found, sigma_w2, sigma_b2, c):
    pair = float(theory.gaussian_moments(act, found.q_star, c * found.q_star))
    return (sigma_w2 * pair + sigma_b2) / found.q_star


@pytest.mark.parametrize(("sigma_w2", "q_star", "chi1", "xi_c"), [(1.0, 0.194, 0.759, 3.63), (1.3, 0.315, 0.880, 7.83)])
def test_tanh_has_the_known_fixed_points(sigma_w2, q_star, chi1, xi_c):
    found = theory.mean_field("tanh", sigma_w2, 0.05)
    assert found.q_star == pytest.approx(q_star, abs=5e-4)  # the digits given
    assert found.chi1 == pytest.approx(chi1, abs=5e-4)
    assert found.xi_c == pytest.approx(xi_c, abs=5e-3)
    assert found.phase == "ordered" and found.c_star == 1.0


def test_the_border_of_tanh():
    assert theory.critical_line("tanh", 0.05) == pytest.approx(1.76, abs=5e-3)
    assert theory.critical_line("tanh", 0.0) == pytest.approx(1.0, abs=1e-6)  # only the length 0 is fixed there
    at = theory.mean_field("tanh", theory.critical_line("tanh", 0.05), 0.05)
    assert at.phase == "critical" and math.isinf(at.xi_c) and math.isinf(at.xi_grad)


@pytest.mark.parametrize("sigma_w2", [1.0, 1.3, 2.5, 4.0])
def test_the_slope_of_the_correlation_map_at_one_is_chi1(sigma_w2):
    found, h = theory.mean_field("tanh", sigma_w2, 0.05), 1e-6
    slope = (1 - correlation_map("tanh", found, sigma_w2, 0.05, 1 - h)) / h
    assert slope == pytest.approx(found.chi1, abs=1e-4)


@pytest.mark.parametrize("sigma_w2", [2.5, 4.0])
def test_chaos_has_a_stable_fixed_point_below_one_that_iteration_finds(sigma_w2):
    """A map started at 1 would stay there and call every network ordered."""
    found = theory.mean_field("tanh", sigma_w2, 0.05)
    assert found.phase == "chaotic" and 0 < found.c_star < 0.9 and found.xi_grad < 0 < found.xi_c
    for c in (0.1, 0.95):
        for _ in range(120):
            c = correlation_map("tanh", found, sigma_w2, 0.05, c)
        assert c == pytest.approx(found.c_star, abs=1e-4)  # exp(-120 / 11.8)
    h = 1e-5
    slope = (
        correlation_map("tanh", found, sigma_w2, 0.05, found.c_star + h)
        - correlation_map("tanh", found, sigma_w2, 0.05, found.c_star - h)
    ) / (2 * h)
    assert found.chi_c == pytest.approx(slope, rel=1e-6) and found.xi_c == pytest.approx(-1 / math.log(slope), rel=1e-5)


def test_lengths_settle_at_the_rate_of_xi_q():
    found = theory.mean_field("tanh", 1.3, 0.05)
    q, gaps = 2.0, []
    for _ in range(25):
        q = 1.3 * float(theory.gaussian_moments("tanh", q, power=2)) + 0.05
        gaps.append(abs(q - found.q_star))
    rate = -math.log(gaps[18] / gaps[15]) / 3
    assert rate * found.xi_q == pytest.approx(1, rel=1e-3)


def test_relu_is_critical_only_at_two_and_settles_there_by_a_power_law():
    """Not every ReLU network has an unlimited depth scale."""
    critical = theory.mean_field("relu", 2.0, 0.0)
    assert critical.phase == "critical" and critical.c_star == 1.0 and math.isinf(critical.xi_c)
    c, gaps = 0.5, []
    for _ in range(2000):
        c = correlation_map("relu", critical, 2.0, 0.0, c)
        gaps.append(1 - c)
    power = math.log(gaps[1999] / gaps[499]) / math.log(4)
    assert power == pytest.approx(-2, abs=0.05)  # 1 - c falls as 9 pi^2 / (2 l^2)
    ordered = theory.mean_field("relu", 1.5, 0.1)
    assert ordered.phase == "ordered" and ordered.q_star == pytest.approx(0.4) and ordered.chi1 == pytest.approx(0.75)
    assert ordered.xi_c == pytest.approx(-1 / math.log(0.75))
    unbounded = theory.mean_field("relu", 2.5, 0.1)
    assert unbounded.phase == "unbounded" and math.isinf(unbounded.q_star) and unbounded.chi1 == pytest.approx(1.25)
    assert math.isnan(unbounded.c_star)
    assert theory.critical_line("relu", 0.1) == pytest.approx(2.0)


@given(st.floats(0.05, 0.95), st.floats(0.0, 2.0))
@settings(max_examples=20, deadline=None)
def test_a_linear_network_has_chi1_equal_to_its_weight_variance(sigma_w2, sigma_b2):
    found = theory.mean_field("linear", sigma_w2, sigma_b2)
    assert found.chi1 == pytest.approx(sigma_w2, rel=1e-12)
    assert found.q_star == pytest.approx(sigma_b2 / (1 - sigma_w2), rel=1e-9, abs=1e-9)
    assert found.xi_q == pytest.approx(-1 / math.log(sigma_w2), rel=1e-6)


def test_odd_activations_without_biases_forget_each_other_in_chaos():
    found = theory.mean_field("tanh", 2.0, 0.0)
    assert found.phase == "chaotic" and found.c_star == pytest.approx(0.0, abs=1e-12)


def test_dropout_removes_the_fixed_point_at_one_and_the_infinite_scale():
    border = theory.critical_line("tanh", 0.05)
    scales = []
    for keep in (0.99, 0.95, 0.9):
        found = theory.mean_field("tanh", border, 0.05, dropout_keep=keep)
        assert 0 < found.c_star < 1 and math.isfinite(found.xi_c)
        pair = float(theory.gaussian_moments("tanh", found.q_star, found.c_star * found.q_star))
        assert (border * pair + 0.05) / found.q_star == pytest.approx(found.c_star, rel=1e-9)
        scales.append(found.xi_c)
    assert scales[0] > scales[1] > scales[2]


def test_random_wide_networks_reach_the_predicted_length_and_correlation():
    found, generator, n, seen = theory.mean_field("tanh", 2.5, 0.05), np.random.default_rng(0), 1000, []
    x = generator.standard_normal((n, 2))
    for layer in range(40):
        bias = math.sqrt(0.05) * generator.standard_normal((n, 1))
        x = math.sqrt(2.5 / n) * generator.standard_normal((n, n)) @ np.tanh(x) + bias
        if layer >= 20:
            seen.append(x.T @ x / n)
    gram = np.mean(seen, 0)
    assert gram[0, 0] == pytest.approx(found.q_star, rel=0.05)  # one net of width 1000 strays by some 3 percent
    assert gram[0, 1] / math.sqrt(gram[0, 0] * gram[1, 1]) == pytest.approx(found.c_star, abs=0.08)


@pytest.mark.parametrize(("act", "q"), [("tanh", 0.25), ("erf", 1 / 64), ("hardtanh", 0.05), ("sigmoid", 30.0)])
def test_the_critical_start_has_the_length_asked_for_and_keeps_gradients(act, q):
    if act == "sigmoid":
        with pytest.raises(InputError, match="no critical point"):
            theory.critical_init(act, q)
        return
    start = theory.critical_init(act, q)
    found = theory.mean_field(act, start.sigma_w2, start.sigma_b2)
    assert found.q_star == pytest.approx(q, rel=1e-5) and found.chi1 == pytest.approx(1, abs=1e-6)
    assert theory.critical_gain(act, q) ** 2 == pytest.approx(start.sigma_w2)


def test_hard_tanh_has_the_gain_of_its_linear_share():
    assert theory.critical_gain("hardtanh", 0.5) ** -2 == pytest.approx(math.erf(1 / math.sqrt(2 * 0.5)), rel=1e-9)


def test_bad_input_is_refused():
    for wrong in ((0.0, 0.1), (1.0, -0.1), (math.nan, 0.1)):
        with pytest.raises(InputError, match="sigma_w2 must be positive"):
            theory.mean_field("tanh", *wrong)
    with pytest.raises(InputError, match="dropout_keep"):
        theory.mean_field("tanh", 1.0, 0.1, dropout_keep=0.0)
    with pytest.raises(InputError, match="q must be positive"):
        theory.critical_gain("tanh", 0.0)
    with pytest.raises(InputError, match="sigma_b2"):
        theory.critical_line("tanh", -1.0)
