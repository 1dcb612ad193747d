import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, kernels, measure, models, train
from phenoscope.core.errors import InputError


def squares(outputs, targets):
    return 0.5 * ((outputs - targets) ** 2).sum()


@pytest.fixture(scope="module")
def run():
    x = data.sphere(8, 6, dtype=torch.float64, generator=0)
    y = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)[:, None]
    network = models.mlp((6,), 1, width=256, depth=2, activation="tanh", parametrization="ntk", generator=0).double()
    rate = 0.5 / float(torch.linalg.eigvalsh(kernels.empirical_ntk(network, x, outputs="trace"))[-1])
    optimizer = functools.partial(torch.optim.SGD, lr=rate)
    fitted = train.fit(
        network, (x, y), steps=120, optimizer=optimizer, loss_fn=squares, batch_size=None,
        states=train.States(at=40), generator=0,
    )  # fmt: skip
    return network, fitted, (x, y), rate


def test_eigenvalues_and_drift_are_those_of_the_two_matrices(run):
    network, fitted, (x, _), _ = run
    found = measure.gram_stability(network, fitted.states, x)
    assert set(found.data_vars) == {"smallest", "largest", "drift", "certified"}
    grams = {}
    for step in (0, 120):
        twin = models.mlp((6,), 1, width=256, depth=2, activation="tanh", parametrization="ntk", generator=1).double()
        twin.load_state_dict(fitted.states[step])
        twin.linear2.bias.requires_grad_(False)  # of no effect here: its scale is zero
        grams[step, "layer"] = kernels.last_hidden_gram(twin, x)
        grams[step, "all"] = kernels.empirical_ntk(twin, x, outputs="trace", method="jacobian")
    for kind in ("layer", "all"):
        at = found.sel(gram=kind, step=120)
        values = torch.linalg.eigvalsh(grams[120, kind])
        assert float(at.smallest) == pytest.approx(float(values[0]), rel=1e-9)
        assert float(at.largest) == pytest.approx(float(values[-1]), rel=1e-9)
        change = torch.linalg.matrix_norm(grams[120, kind] - grams[0, kind], 2)
        assert float(at.drift) == pytest.approx(float(change), rel=1e-8)
    assert (found.drift.isel(step=0) == 0).all()


def test_a_wide_network_converges_as_its_matrices_guarantee(run):
    network, fitted, (x, y), rate = run
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = measure.gram_stability(network, fitted.states, x, y, lr=rate)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert bool(found.certified.all()) and bool(found.within.all())
    half = found.smallest.isel(step=0) / 2
    np.testing.assert_allclose(found.bound.sel(step=80), (1 - rate * half) ** 80 * float(found.residual[0]), rtol=1e-12)
    # the loss stands before the update, half of the squared residual
    assert float(found.residual.sel(step=40)) == pytest.approx(2 * float(fitted.history.loss.sel(step=41)), rel=1e-9)
    assert float(found.rate) > -np.log1p(-rate * float(half.sel(gram="all")))
    # the whole matrix is that of one layer and more: its guarantee is the sharper one
    assert (found.smallest.sel(gram="all") > found.smallest.sel(gram="layer")).all()


def test_without_the_start_the_residual_is_the_targets(run):
    network, fitted, (x, y), rate = run
    found = measure.gram_stability(network, fitted.states, x, y[:, 0], lr=rate, subtract_start=True)
    assert float(found.residual[0]) == pytest.approx(8.0)


def test_a_matrix_that_collapses_is_not_certified(run):
    network, fitted, (x, y), rate = run
    state = dict(fitted.states[0])
    dead = state | {"linear2.weight": state["linear2.weight"] * 1000}  # saturated: no slopes left
    found = measure.gram_stability(network, {0: state, 10: dead}, x, y, lr=rate)
    assert not found.certified.sel(gram="layer", step=10) and not found.within.isel(step=-1).any()
    assert float(found.smallest.sel(gram="layer", step=10)) < 0.1 * float(found.smallest.sel(gram="layer", step=0))


def test_a_network_that_diverged_has_no_eigenvalues_and_no_certificate(run):
    network, fitted, (x, y), rate = run
    state = dict(fitted.states[0])
    lost = state | {"logits.weight": state["logits.weight"] * torch.inf}
    found = measure.gram_stability(network, {0: state, 10: lost}, x, y, lr=rate)
    assert bool(found.smallest.sel(step=10).isnull().all()) and bool(found.smallest.sel(step=0).notnull().all())
    assert not found.certified.sel(step=10).any() and not found.within.sel(step=10).any()


def test_a_network_with_several_outputs_has_a_row_for_each():
    x = data.sphere(4, 5, generator=0)
    network = models.mlp((5,), 3, width=16, activation="tanh", generator=0)
    found = measure.gram_stability(
        network, {3: network.state_dict()}, x, torch.zeros(4, 3), lr=0.1, layer=network.linear1
    )
    with torch.no_grad():
        assert found.residual.item() == pytest.approx(float(network(x).square().sum()), rel=1e-5)  # float32
    kernel = kernels.empirical_ntk(network.double(), x.double()).transpose(1, 2).reshape(12, 12)
    assert found.largest.sel(gram="all").item() == pytest.approx(float(torch.linalg.eigvalsh(kernel)[-1]), rel=1e-9)
    assert np.isnan(float(found.rate))


def test_single_precision_would_lose_the_smallest_eigenvalue():
    x = data.sphere(6, 5, dtype=torch.float64, generator=0)
    x[1] = x[0] + 1e-5 * x[2]  # nearly parallel
    network = nn.Sequential(nn.Linear(5, 400), nn.Tanh(), nn.Linear(400, 1))
    found = measure.gram_stability(network, {0: network.state_dict()}, x, layer="0")
    twin = nn.Sequential(nn.Linear(5, 400), nn.Tanh(), nn.Linear(400, 1)).double()
    twin.load_state_dict(network.state_dict())
    exact = torch.linalg.eigvalsh(kernels.last_hidden_gram(twin, x, layer="0"))
    smallest = found.smallest.sel(gram="layer").item()
    assert 1e-14 < smallest < 1e-7 * found.largest.sel(gram="layer").item()  # float32 resolves 1e-7 of the largest
    assert smallest == pytest.approx(float(exact[0]), rel=1e-2)


def test_what_does_not_fit_is_refused(run):
    network, fitted, (x, y), _ = run
    with pytest.raises(InputError, match="both y and lr"):
        measure.gram_stability(network, fitted.states, x, y)
    with pytest.raises(InputError, match="targets have shape"):
        measure.gram_stability(network, fitted.states, x, y[:3], lr=0.1)
    with pytest.raises(InputError, match="no states"):
        measure.gram_stability(network, {}, x)
