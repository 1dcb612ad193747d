import functools

import numpy as np
import pytest
import torch

from phenoscope import data, train
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import fitted_nets as bench

SMALL = functools.partial(data.digits, train=200)
NET = functools.partial(bench.mlp, width=(32,))


def trained(noise=0.1, **settings):
    part, _, classes = bench.setting(Lab(0), dataset=SMALL, noise=noise, seed=0)
    common = dict(classes=classes, seeds=(1, 2), steps=120, batch=50)
    return part, bench.fitted(NET, [part, part], **common | settings)


def test_labels_are_wrong_in_the_training_part_alone_and_the_same_for_every_caller():
    part, test, classes = bench.setting(Lab(0), dataset=SMALL, noise=0.5, seed=3)
    again, _, _ = bench.setting(Lab(0), dataset=SMALL, noise=0.5, seed=3)
    clean = data.load(SMALL, generator=Lab(0).seed("split", 3))
    assert torch.equal(part[1], again[1])
    assert torch.equal(test[1], clean.test[1])
    assert classes == 10
    assert 0.3 < float((part[1] != clean.train[1]).double().mean()) < 0.5  # half drawn anew, a tenth of it the same


def test_a_member_ends_with_the_first_epoch_that_reaches_the_loss():
    _, found = trained(stop_loss=1.0)
    assert found.fitted.all()
    for member in range(2):
        curve = found.loss.isel(member=member).values
        end = int(found.steps[member]) // 4 - 1
        assert curve[end] <= 1.0
        assert (curve[:end] > 1.0).all()
        assert np.isnan(curve[end + 1 :]).all()


def test_what_is_given_back_is_the_network_of_that_epoch():
    part, found = trained(stop_loss=1.0, seeds=(1,) * 2)
    steps = int(found.steps[0])
    assert steps <= 40  # within the first ten epochs: one fleet without a pause
    order = bench.child_seeds(1, 3)[0]
    net = train.build(NET, shape=part[0].shape[1:], num_classes=10, generator=1)
    schedule = functools.partial(bench._rate, before=0, steps=120)
    train.fit(net, part, steps=steps, optimizer=bench.SGD, batch_size=50, schedule=schedule, generator=order)
    torch.testing.assert_close(
        dict(found.networks[0].named_parameters()), dict(net.named_parameters()), atol=1e-5, rtol=1e-4
    )  # float32 sums in another order


def test_stopping_by_accuracy_fits_every_example():
    part, found = trained(noise=0.0, stop_accuracy=1.0, steps=400, lr=[0.05, 0.1])
    assert found.fitted.all()
    assert found.networks.accuracy(part).tolist() == [1.0, 1.0]
    assert (found.steps < 400).all()


def test_what_never_fits_is_trained_to_the_end_and_said_so():
    _, found = trained(stop_loss=1e-6, weight_decay=[0.0, 1e-3])
    assert not found.fitted.any()
    assert found.steps.tolist() == [120, 120]
    assert found.loss.notnull().all()
    assert not torch.equal(found.networks.parameters["logits.weight"], found.start.parameters["logits.weight"])


def test_a_member_does_not_depend_on_who_trains_beside_it():
    part, both = trained(stop_loss=0.3)
    _, _, classes = bench.setting(Lab(0), dataset=SMALL, noise=0.1, seed=0)
    alone = bench.fitted(NET, [part], classes=classes, seeds=(2,), steps=120, batch=50, stop_loss=0.3)
    assert int(alone.steps[0]) == int(both.steps[1])
    for name, value in alone.networks.parameters.items():
        torch.testing.assert_close(value[0], both.networks.parameters[name][1], atol=1e-4, rtol=1e-3)  # order of sums


def test_chosen_takes_members_in_the_order_asked_for():
    _, found = trained(stop_loss=1.0)
    picked = bench.chosen(found.networks, torch.tensor([1, 0]))
    name = "logits.weight"
    assert torch.equal(picked.parameters[name][0], found.networks.parameters[name][1])
    with pytest.raises(IndexError):
        picked[2]
