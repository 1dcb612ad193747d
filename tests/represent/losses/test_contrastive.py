import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.represent import infonce, ntxent


def views(n=12, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, d, generator=generator, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(1, 9), st.sampled_from([0.05, 0.1, 0.5, 1.0]), st.integers(0, 1000))
def test_it_is_the_loss_of_pytorch_metric_learning(n, d, temperature, seed):
    z1, z2 = views(n, d, seed)
    labels = torch.arange(n).repeat(2)
    wanted = NTXentLoss(temperature=temperature)(torch.cat([z1, z2]), labels)
    assert ntxent(z1, z2, temperature=temperature).item() == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize("n", [2, 5, 64])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_orthogonal_pairs_of_identical_views_have_a_closed_form(n, temperature):
    pairs = torch.eye(n, dtype=torch.float64)
    wanted = math.log1p((2 * n - 2) * math.exp(-1 / temperature))
    assert ntxent(pairs, pairs, temperature=temperature).item() == pytest.approx(wanted, abs=1e-6)


def test_it_is_symmetric_and_sees_neither_lengths_nor_the_order_of_the_batch():
    z1, z2 = views()
    value = ntxent(z1, z2)
    order = torch.randperm(12)
    assert torch.allclose(ntxent(z2, z1), value)
    assert torch.allclose(ntxent(3 * z1, z2 * torch.rand(12, 1)), value)
    assert torch.allclose(ntxent(z1[order], z2[order]), value)
    assert not torch.allclose(ntxent(z1, z2[order]), value)


def test_both_directions_count_and_the_anchor_is_not_its_own_negative():
    z1, z2 = views(4)
    u = functional.normalize(torch.cat([z1, z2]), dim=1)
    total = 0.0
    for i in range(8):
        own = math.exp(u[i] @ u[(i + 4) % 8] / 0.5)
        others = sum(math.exp(u[i] @ u[k] / 0.5) for k in range(8) if k != i)
        total -= math.log(own / others)
    assert ntxent(z1, z2).item() == pytest.approx(total / 8)


def test_a_batch_of_one_has_nothing_to_be_told_from():
    assert ntxent(torch.ones(1, 3), torch.ones(1, 3)) == 0


def test_gradients_are_finite_under_vmap_too():
    z = views(5)[None].repeat(3, 1, 1, 1)
    found = torch.func.vmap(torch.func.grad(lambda pair: ntxent(*pair)))(z)
    assert found.isfinite().all() and torch.allclose(found[0], found[2])


def test_infonce_is_cross_entropy_with_the_diagonal_and_its_bound():
    scores = torch.randn(9, 9, dtype=torch.float64)
    found = infonce(scores)
    assert found.loss == functional.cross_entropy(scores, torch.arange(9))
    assert found.bound.item() == pytest.approx(math.log(9) - found.loss.item())
    flat = infonce(torch.full((9, 9), 4.0, dtype=torch.float64))
    assert flat.loss.item() == pytest.approx(math.log(9)) and flat.bound.item() == pytest.approx(0, abs=1e-12)
    assert infonce(1e4 * torch.eye(9)).bound.item() == pytest.approx(math.log(9))


def test_bad_input_is_named():
    with pytest.raises(InputError, match="one shape"):
        ntxent(torch.ones(3, 4), torch.ones(4, 4))
    with pytest.raises(InputError, match="temperature"):
        ntxent(torch.ones(3, 4), torch.ones(3, 4), temperature=0.0)
    with pytest.raises(InputError, match="square"):
        infonce(torch.ones(3, 4))
