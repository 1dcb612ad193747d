import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad

from phenoscope.kernels.limits import compiled
from phenoscope.kernels.limits.numba_steps import TABLES, arcsine_and_root
from phenoscope.theory.gaussian.activations import activation
from phenoscope.theory.gaussian.moments import gaussian_moments

# float32: the arcsine's slope at 1 turns a rounding of 1e-7 in a correlation into 3e-4 of its value
WITHIN = {torch.float64: (1e-14, 1e-14), torch.float32: (2e-6, 4e-4)}


def states(count, a, b, dtype, seed=0):
    """Covariances of vectors in three dimensions, some of them parallel, opposite or zero."""
    g = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(count, n, 3, generator=g, dtype=torch.float64) for n in (a, b))
    v[:, 0], u[:, -1] = u[:, 0], 0.0
    if min(a, b) > 1:
        v[:, 1] = -2 * u[:, 1]
    theta = torch.randn(count, a, b, generator=g, dtype=torch.float64)
    return tuple(each.to(dtype) for each in (u @ v.mT, theta, u.square().sum(-1), v.square().sum(-1)))


def by_moments(act, nngp, ntk, q1, q2):
    q1, q2 = q1.double()[:, :, None], q2.double()[:, None]
    limit = (q1 * q2).sqrt()
    k = nngp.double().clamp(-limit, limit)
    k = torch.where((limit - k.abs()) < 1e-6 * limit, limit * k.sign(), k)  # parallel: exactly so
    return gaussian_moments(act, q1, k, q2), ntk.double() * gaussian_moments(act, q1, k, q2, derivative=True)


def step(act, nngp, ntk, q1, q2):
    act = activation(act)
    if act.is_erf:
        compiled.erf_step(nngp, ntk, q1, q2)
    else:
        compiled.piecewise_step(nngp, ntk, q1, q2, slopes=act.slopes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs", "linear", "erf"])
def test_a_step_is_what_the_closed_forms_in_torch_give(act, dtype):
    nngp, ntk, q1, q2 = states(3, 40, 50, dtype)
    expected = by_moments(act, nngp, ntk, q1, q2)
    step(act, nngp, ntk, q1, q2)
    for ours, theirs, within in zip((nngp, ntk), expected, WITHIN[dtype], strict=True):
        assert (ours - theirs).abs().max() < within * theirs.abs().max()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.sampled_from([torch.float32, torch.float64]))
def test_any_shape_and_without_a_tangent_kernel_the_covariances_are_the_same(count, a, b, dtype):
    nngp, ntk, q1, q2 = states(count, a, b, dtype)
    alone = nngp.clone()
    step("relu", nngp, ntk, q1, q2)
    step("relu", alone, None, q1, q2)
    assert torch.equal(nngp, alone)


def test_a_step_is_the_integral_that_it_stands_for():
    k, q1, q2 = 0.4, 1.0, 1.5
    inverse = np.linalg.inv([[q1, k], [k, q2]])
    root = 2 * np.pi * np.sqrt(q1 * q2 - k**2)

    def density(u, v):
        return np.exp(-(inverse[0, 0] * u * u + 2 * inverse[0, 1] * u * v + inverse[1, 1] * v * v) / 2) / root

    nngp, ntk = torch.full((1, 1, 1), k).double(), torch.ones(1, 1, 1).double()
    step("relu", nngp, ntk, torch.full((1, 1), q1), torch.full((1, 1), q2))
    assert nngp.item() == pytest.approx(dblquad(lambda u, v: u * v * density(u, v), 0, 12, 0, 12)[0], rel=1e-6)
    assert ntk.item() == pytest.approx(dblquad(density, 0, 12, 0, 12)[0], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_arcsine_and_the_root_are_numpys_to_the_last_digits(dtype):
    c = np.linspace(-1, 1, 4001).astype(dtype)
    found = np.array([arcsine_and_root(each, TABLES[dtype]) for each in c])
    root = np.sqrt((1 - c.astype(float)) * (1 + c.astype(float)))
    within = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found[:, 0], np.arcsin(c.astype(float)), rtol=within, atol=within)
    np.testing.assert_allclose(found[:, 1], root, rtol=within, atol=within)


def test_equal_inputs_have_correlation_one_however_their_kernel_was_rounded():
    q = torch.tensor([[0.1, 1.7, 123.4]]).double()
    nngp, ntk = torch.diag_embed(q * (1 - 4e-16)), torch.eye(3).double()[None]
    step("relu", nngp, ntk, q, q)
    assert torch.equal(ntk[0].diagonal(), torch.full((3,), 0.5).double())


def test_threads_change_nothing():
    states_ = states(3, 120, 170, torch.float64)
    one, several = ([each.clone() for each in states_] for _ in range(2))
    step("relu", *one)
    torch.set_num_threads(3)
    step("relu", *several)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_nan_stays_nan():
    nngp = torch.tensor([[[float("nan"), 0.5]]]).double()
    step("relu", nngp, None, torch.ones(1, 1), torch.ones(1, 2))
    assert nngp.isnan().tolist() == [[[True, False]]]


def test_suits_tensors_on_the_cpu_in_single_and_double_precision():
    assert compiled.suits(torch.zeros(1)) and compiled.suits(torch.zeros(1).double())
    assert not compiled.suits(torch.zeros(1).half()) and not compiled.suits(torch.zeros(1, device="meta"))
