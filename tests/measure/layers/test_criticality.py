import functools
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, measure, models, train
from phenoscope.core.errors import InputError

SPLIT = data.digits(train=600)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
MLP = functools.partial(models.mlp, width=(32, 32, 32))
CNN = functools.partial(models.cnn, width=(6, 6), norm="batch")


@functools.cache
def trained(make_model=MLP, lr=0.05):
    net = train.build(make_model, shape=(1, 8, 8), num_classes=10, generator=0)
    optimizer = functools.partial(SGD, lr=lr)
    done = train.fit(
        net, SPLIT.train, steps=150, optimizer=optimizer, states=train.States(at=(0, 40, 150)), generator=0
    )
    return net, done.states


def digest(net):
    parts = [value.detach().numpy().tobytes() for value in net.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_each_number_is_the_accuracy_of_a_network_put_together_by_hand():
    net, states = trained()
    found = measure.layer_criticality(net, states, SPLIT.test)
    assert found.layer.values.tolist() == ["linear1", "linear2", "linear3", "logits"]
    assert found.step.values.tolist() == [0, 40, 150]
    np.testing.assert_allclose(found.accuracy, train.accuracy(net, SPLIT.test))
    mixed = train.build(MLP, shape=(1, 8, 8), num_classes=10, generator=9)
    for layer in found.layer.values:
        for step in found.step.values:
            state = {name: value.clone() for name, value in net.state_dict().items()}
            state |= {name: states[step][name] for name in state if name.startswith(f"{layer}.")}
            mixed.load_state_dict(state)
            assert float(found.replaced.sel(layer=layer, step=step)) == train.accuracy(mixed, SPLIT.test)
            moved = torch.cat([(net.state_dict()[n] - states[step][n]).flatten() for n in state if n.startswith(layer)])
            one = found.sel(layer=layer, step=step)
            np.testing.assert_allclose(one.l2, moved.norm() / len(moved) ** 0.5, rtol=1e-5, atol=1e-12)
            np.testing.assert_allclose(one.linf, moved.abs().max(), rtol=1e-6)


def test_nothing_is_lost_at_the_last_step_and_all_at_the_first_with_all_layers():
    net, states = trained()
    found = measure.layer_criticality(net, states, SPLIT.test)
    assert (found.criticality.sel(step=150) == 0).all()
    assert (found.l2.sel(step=150) == 0).all()
    start = train.build(MLP, shape=(1, 8, 8), num_classes=10, generator=0)
    assert float(found.all_replaced.sel(step=0)) == train.accuracy(start, SPLIT.test)
    assert float(found.all_replaced.sel(step=150)) == float(found.accuracy)


def test_a_network_that_has_not_moved_loses_nothing():
    net, states = trained(lr=0.0)
    found = measure.layer_criticality(net, states, SPLIT.test)
    assert (found.criticality == 0).all() and (found.linf == 0).all()


def test_its_own_first_values_are_not_a_new_draw():
    """The trap: redrawing in place of the values that were stored."""
    net, states = trained()
    found = measure.layer_criticality(net, states, SPLIT.test, make_model=MLP, repeats=4, generator=3)
    own, new = found.replaced.sel(step=0), found.rerandomized
    assert new.dims == ("layer", "repeat") and new.sizes["repeat"] == 4
    assert float(new.std("repeat").max()) > 0.01  # draws differ
    assert float((own - new.mean("repeat")).mean()) > 0.1  # far milder, as the paper has it
    again = measure.layer_criticality(net, states, SPLIT.test, make_model=MLP, repeats=4, generator=3)
    assert again.identical(found)


def test_the_network_is_left_as_it_was_to_the_bit():
    net, states = trained(CNN)
    before, modes = digest(net), [module.training for module in net.modules()]
    measure.layer_criticality(
        net, states, SPLIT.test, make_model=CNN, repeats=1, refresh_bn=SPLIT.train[0], generator=0
    )
    assert digest(net) == before
    assert [module.training for module in net.modules()] == modes


def test_running_statistics_stay_and_can_be_computed_anew():
    net, states = trained(CNN)
    found = measure.layer_criticality(net, states, SPLIT.test, refresh_bn=SPLIT.train[0])
    name = found.layer.values[0]
    mixed = train.build(CNN, shape=(1, 8, 8), num_classes=10, generator=0)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    state |= {key: states[0][key] for key, _ in net.named_parameters() if key.startswith(f"{name}.")}
    mixed.load_state_dict(state)  # buffers as trained
    assert float(found.replaced.sel(layer=name, step=0)) == train.accuracy(mixed, SPLIT.test)
    for module in mixed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for part in SPLIT.train[0].split(256):
            mixed.train()(part)
    assert float(found.refreshed.sel(layer=name, step=0)) == train.accuracy(mixed, SPLIT.test)
    assert float(found.refreshed.sel(layer=name, step=0)) != float(found.replaced.sel(layer=name, step=0))


def test_a_block_is_a_layer_with_its_norm():
    net, states = trained(CNN)
    layers = measure.layer_criticality(net, states, SPLIT.test)
    blocks = measure.layer_criticality(net, states, SPLIT.test, group="block")
    assert len(blocks.layer) == 3 and len(layers.layer) == 5
    assert set(blocks.layer.values) < set(layers.layer.values)


def test_kinds_follow_from_what_a_layer_costs():
    """One layer alone has learned: it is critical, a layer that was never changed is ambient."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 10))
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(10))
        net[2].bias.zero_()
        net[1].weight.zero_()
    start = {name: value.clone() for name, value in net.state_dict().items()}
    net[2].requires_grad_(False)
    train.fit(net, SPLIT.train, steps=100, optimizer=SGD, generator=0)
    found = measure.layer_criticality(net, {0: start}, SPLIT.test)
    assert found.kind.values.tolist() == ["critical", "ambient"]
    assert float(found.together.sel(step=0)) == float(found.accuracy)


def test_what_cannot_be_put_back_is_named():
    net, states = trained()
    with pytest.raises(InputError, match="needs states"):
        measure.layer_criticality(net, {}, SPLIT.test)
    with pytest.raises(InputError, match="init_state"):
        measure.layer_criticality(net, {0: {"x": torch.zeros(1)}}, SPLIT.test)
    with pytest.raises(InputError, match="another network"):
        other = functools.partial(models.mlp, width=(8, 8, 8))
        measure.layer_criticality(net, states, SPLIT.test, make_model=other)
    with pytest.raises(InputError, match="group"):
        measure.layer_criticality(net, states, SPLIT.test, group="stage")
    with pytest.raises(InputError, match="no parameters"):
        measure.layer_criticality(nn.Flatten(), {0: {}}, SPLIT.test)
