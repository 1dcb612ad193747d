import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, measure, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure import information_plane, mi_binned, mi_kde

BITS = data.icosahedral_bits()
X, Y = BITS.inputs, BITS.probabilities.argmax(1)


def network(activation="tanh", seed=0):
    return models.mlp((12,), 2, width=(6, 3), activation=activation, init="lecun", generator=seed)


def scaled(model, factor):
    with torch.no_grad():
        model.linear1.weight.mul_(factor)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_every_layer_is_read_off_as_the_estimator_says():
    model = network()
    found = information_plane(model, X, Y, layers=nn.Tanh)
    assert found.layer.values.tolist() == ["act1", "act2"] and found.input.dims == ("layer",)
    hidden = torch.tanh(model.linear1(X))
    assert float(found.input[0]) == mi_binned(hidden, Y, range=(-1, 1)).input
    assert (found.label <= found.input).all() and (found.input <= found.ceiling).all() and float(found.ceiling) == 12
    by_kde = information_plane(
        model, X[:500], Y[:500], layers=["act1"], estimator=functools.partial(mi_kde, noise_var=0.3)
    )
    assert float(by_kde.input[0]) == pytest.approx(mi_kde(hidden[:500], Y[:500], noise_var=0.3).input, abs=1e-6)
    chunked = information_plane(model, X, Y, layers=nn.Tanh, chunk=100)
    np.testing.assert_allclose(chunked.input, found.input, atol=0.01)  # other products may round across an edge


def test_bins_of_relu_span_all_snapshots_and_their_scale_does_not_matter():
    states = {0: scaled(network("relu"), 1.0), 5: scaled(network("relu"), 4.0), 9: scaled(network("relu"), 2.0)}
    found = information_plane(network("relu"), X, Y, layers=["act1"], states=states)
    assert found.step.values.tolist() == [0, 5, 9] and found.input.dims == ("step", "layer")
    # the trap: bins laid anew at every step say that nothing happened
    anew = information_plane(network("relu"), X, Y, layers=["act1"], states=states, estimator=mi_binned)
    np.testing.assert_allclose(anew.input, anew.input[0].values[None].repeat(3, 0), atol=1e-9)
    assert (found.input[1] - found.input[0]).item() > 0.3
    assert found.input[1].item() == pytest.approx(anew.input[1].item(), abs=1e-9)
    tenfold = {step: {**state, "linear1.weight": 8 * state["linear1.weight"]} for step, state in states.items()}
    again = information_plane(network("relu"), X, Y, layers=["act1"], states=tenfold)
    np.testing.assert_allclose(again.input, found.input, atol=1e-9)


def test_bins_of_tanh_stay_and_show_saturation():
    states = {0: scaled(network(), 1.0), 1: scaled(network(), 30.0)}
    found = information_plane(network(), X, Y, layers=["act1"], states=states)
    assert (found.input[0] - found.input[1]).item() > 1


def test_random_layers_that_do_not_change_do_not_compress():
    states = dict.fromkeys(range(4), scaled(network(), 1.0))
    found = information_plane(network(), X, Y, layers=nn.Tanh, states=states).input
    np.testing.assert_array_equal(found.max("step") - found.isel(step=-1), 0)


def test_few_inputs_are_at_their_ceiling():
    # the trap: on 100 inputs a random layer seems to know all there is
    found = information_plane(network(), X[::41], Y[::41], layers=["act1"])
    assert float(found.ceiling) == pytest.approx(np.log2(100), abs=1e-9)
    assert float(found.ceiling - found.input[0]) < 0.1


def test_a_watch_and_the_snapshots_of_a_fleet_give_the_same():
    look = functools.partial(information_plane, x=X, y=Y, layers=nn.Tanh)
    at = [0, 3, 6]
    fleet = train.fleet(
        [network(seed=seed) for seed in range(2)], (X[:400], Y[:400]), steps=6, generator=0,
        optimizer=functools.partial(torch.optim.Adam, lr=0.01), states=train.States(at=at),
        watch=train.Watch({"input": lambda model: look(model).input.values}, at=at),
    )  # fmt: skip
    for member in range(2):
        later = look(fleet[member], states=fleet.states.member(member))
        np.testing.assert_array_equal(fleet.watched.input.sel(member=member), later.input)


def test_the_network_is_left_as_it_was_and_works_in_place_are_seen():
    model = nn.Sequential(nn.Linear(12, 3), nn.ReLU(inplace=True), nn.Linear(3, 2), nn.Softmax(1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = {0: before, 1: {name: value + 1 for name, value in before.items()}}
    found = information_plane(model, X, Y, layers=["0", "1", "3"], states=states)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    own = model[0](X)
    assert float(found.input[0, 0]) != float(found.input[0, 1])
    alone = information_plane(model, X, Y, layers=["0"])
    assert float(alone.input[0]) == mi_binned(own, Y).input
    steady = measure.information_plane(nn.Sequential(nn.Linear(12, 2), nn.ReLU()), X[:1], Y[:1], layers=nn.ReLU)
    assert float(steady.input[0]) == 0


def test_what_cannot_be_placed_is_refused():
    with pytest.raises(InputError, match="no states"):
        information_plane(network(), X, Y, layers=nn.Tanh, states={})
    with pytest.raises(InputError, match="no layer"):
        information_plane(network(), X, Y, layers=["act7"])
    with pytest.raises(InputError, match="one row"):
        information_plane(network(), X, Y[:5], layers=nn.Tanh)
    shared = nn.Tanh()
    twice = nn.Sequential(nn.Linear(12, 3), shared, nn.Linear(3, 3), shared)
    with pytest.raises(InputError, match="2 times"):
        information_plane(twice, X, Y, layers=[shared])
