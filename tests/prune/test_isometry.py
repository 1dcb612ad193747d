import copy

import pytest
import torch
from torch import nn
from torch.func import grad

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.measure import jacobian_singular_values
from phenoscope.prune import Masks, enforce_isometry, isometry_error, one_shot
from phenoscope.prune.isometry import _residual, _slope


def linear(outputs, inputs, density=1.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=False)
    models.init_gaussian(layer, generator=seed)
    return layer, Masks({"weight": torch.rand(outputs, inputs, generator=rng) < density})


def test_an_orthogonal_layer_stays_as_it_is():
    network = models.deep_linear((20,), 20, width=20, depth=6)
    models.init_orthogonal(network, generator=0)
    ticket = enforce_isometry(network, Masks.ones(network))
    for name, value in network.state_dict().items():
        assert torch.equal(ticket.init_state[name], value)  # no step was taken
    values = jacobian_singular_values(ticket.network(network), torch.randn(2, 20))
    torch.testing.assert_close(values, torch.ones(2, 20).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("outputs", "inputs"), [(30, 30), (20, 50), (50, 20)])
@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_a_dense_gaussian_layer_becomes_orthogonal(outputs, inputs, gain):
    layer, masks = linear(outputs, inputs)
    assert isometry_error(layer, masks, gain=gain).error.item() > 1
    moved = enforce_isometry(layer, masks, gain=gain).network(layer)
    assert isometry_error(moved, masks, gain=gain).error.item() < 1e-3
    values = torch.linalg.svdvals(moved.weight.detach())
    torch.testing.assert_close(values, torch.full_like(values, gain), atol=1e-3, rtol=0)


def test_the_slope_is_that_of_autograd():
    matrix = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alive = torch.ones(3, 5, dtype=torch.bool)
    alive[1, 2], matrix[1, 2] = False, 0
    expected = grad(lambda at: _residual(at, alive, 1.3).square().sum())(matrix)
    torch.testing.assert_close(_slope(matrix, _residual(matrix, alive, 1.3)), expected, rtol=1e-6, atol=1e-10)


def test_only_what_is_kept_moves_and_nothing_in_the_network_does():
    network = models.mlp((12,), 4, width=(30, 30), norm="batch", generator=0)
    network.train()
    network.linear1.weight.requires_grad_(False)
    network.linear2.weight.grad = torch.ones_like(network.linear2.weight)
    masks = one_shot(network, density=0.3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ticket = enforce_isometry(network, masks)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and (network.linear2.weight.grad == 1).all()
    assert ticket.masks == masks and ticket.density == masks.density
    for name, value in ticket.init_state.items():
        if name in masks:
            assert not value[~masks[name]].any() and not torch.equal(value, before[name])
        else:  # biases and norms
            assert torch.equal(value, before[name])
    pruned = masks.apply_(copy.deepcopy(network))
    assert (isometry_error(ticket.network(network), masks).error < 0.7 * isometry_error(pruned, masks).error).all()


def test_a_row_of_one_weight_becomes_a_sign_and_an_empty_one_is_told():
    layer, _ = linear(4, 6)
    with torch.no_grad():
        layer.weight[0, 1], layer.weight[1, 2] = -0.01, 0.4
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 1] = mask[1, 2] = True
    mask[2, 3:] = True
    masks = Masks({"weight": mask})
    moved = enforce_isometry(layer, masks).network(layer)
    found = isometry_error(moved, masks)
    assert found.dead.item() == 1 and found.rows.item() == 4 and found.error.item() < 1e-3
    assert moved.weight[0, 1].item() == pytest.approx(-1, abs=1e-3)  # its own sign
    assert moved.weight[1, 2].item() == pytest.approx(1, abs=1e-3)
    assert moved.weight[2, 3:].norm().item() == pytest.approx(1, abs=1e-3)
    assert not moved.weight[3].any()


def test_one_factor_a_layer_mends_the_mean_but_not_the_spread():
    # the trap: scaling each layer as a whole
    network = models.deep_linear((24,), 24, width=24, depth=6)
    models.init_orthogonal(network, generator=0)
    masks = Masks({name: torch.rand(w.shape, generator=torch.Generator().manual_seed(0)) < 0.5
                   for name, w in Masks.ones(network).items()})  # fmt: skip
    pruned = masks.apply_(copy.deepcopy(network))
    scaled = copy.deepcopy(pruned)
    with torch.no_grad():
        for weight in scaled.parameters():
            weight.mul_(24**0.5 / weight.norm())
    enforced = enforce_isometry(network, masks).network(network)
    x = torch.randn(1, 24)
    left, once, mended = (jacobian_singular_values(each, x)[0] for each in (pruned, scaled, enforced))
    assert left.mean() < 0.3 and mended.mean() > 0.8
    assert once[0] / once[-1] > 1e3 > 100 > mended[0] / mended[-1]
    # nor does it draw the weights anew: what it gives leans towards what there was
    for name, mask in masks.items():
        a, b = network.get_parameter(name)[mask].detach(), enforced.get_parameter(name)[mask].detach()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.3


def test_convolutions_are_matrices_over_all_taps_group_by_group():
    layer = nn.Conv2d(4, 6, 3, groups=2)
    moved = enforce_isometry(layer, Masks.ones(layer)).network(layer)
    for rows in moved.weight.detach().flatten(1).split(3):
        torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-3, rtol=0)


def test_shared_weights_move_together_and_dtypes_stay():
    network = nn.Sequential(nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9)).to(torch.bfloat16)
    network[2].weight = network[0].weight
    ticket = enforce_isometry(network, Masks.ones(network), steps=200)
    state = ticket.init_state
    assert torch.equal(state["0.weight"], state["2.weight"]) and state["0.weight"].dtype == torch.bfloat16
    assert isometry_error(ticket.network(network)).error.max() < 0.1  # bfloat16 has three digits


def test_bad_input_is_named():
    layer, masks = linear(4, 4)
    for bad in (dict(steps=-1), dict(lr=0), dict(gain=0), dict(tolerance=float("nan"))):
        with pytest.raises(InputError, match="at least 0"):
            enforce_isometry(layer, masks, **bad)
    with pytest.raises(InputError, match="no parameter"):
        enforce_isometry(layer, Masks({"other": torch.ones(4, 4)}))
    with pytest.raises(InputError, match="one dimension"):
        isometry_error(nn.Linear(3, 3), Masks({"bias": torch.ones(3)}))
