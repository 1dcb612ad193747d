import functools

import pytest
import torch
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, Ticket, imp, one_shot

SPLIT = data.digits(train=400)
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)


def net(seed=0):
    return models.mlp((1, 8, 8), 10, width=(24, 16), generator=seed)


def fit(model, part, *, steps=30, **settings):
    return train.fit(model, part, steps=steps, optimizer=SGD, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_zero_is_dense_training_and_the_model_is_left_alone():
    model = net()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    tickets = imp(model, SPLIT.train, fit, rounds=1, generator=3)
    twin = net()
    train.fit(twin, SPLIT.train, steps=30, optimizer=SGD, generator=tickets[0].seed)
    assert tickets[0].density == 1
    assert same(tickets[0].model.state_dict(), twin.state_dict())
    assert same(model.state_dict(), state)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_each_round_prunes_the_share_of_what_is_left_and_resets_the_rest(scope):
    model = net()
    tickets = imp(model, SPLIT.train, fit, rounds=4, rate=0.35, scope=scope, generator=0)
    sizes = {name: mask.numel() for name, mask in tickets[0].masks.items()}
    for number, ticket in enumerate(tickets):
        if scope == "layer":
            assert ticket.masks.counts == {name: round(0.65**number * size) for name, size in sizes.items()}
        else:
            assert sum(ticket.masks.counts.values()) == round(0.65**number * sum(sizes.values()))
        assert same(dict(ticket.init_state), dict(model.state_dict()))  # survivors, biases, everything: w0 exactly
        start = ticket.network(model)
        for name, (parameter, mask) in ticket.masks.within(start).items():
            assert torch.equal(parameter[mask], model.get_parameter(name)[mask])
            assert not parameter[~mask].any()
            assert not ticket.model.get_parameter(name)[~mask].any()  # zero after training, too
        if number:
            before = tickets[number - 1]
            assert ticket.masks & before.masks == ticket.masks
            assert ticket.masks == one_shot(before.model, density=0.65**number, scope=scope, within=before.masks)


def test_the_first_masks_are_those_of_torchs_l1_pruning_of_the_trained_network():
    tickets = imp(net(), SPLIT.train, fit, rounds=1, rate=0.2, generator=0)
    theirs = tickets[0].model
    for module in theirs:
        if isinstance(module, nn.Linear):
            torch.nn.utils.prune.l1_unstructured(module, "weight", amount=0.2)
    assert tickets[1].masks == Masks.from_torch(theirs)


def test_the_output_layer_may_have_a_rate_of_its_own():
    tickets = imp(net(), SPLIT.train, fit, rounds=3, rate=0.2, output_rate=0.1, generator=0)
    counts = tickets[3].masks.counts
    assert counts["logits.weight"] == round(0.9**3 * 160)
    assert counts["linear1.weight"] == round(0.8**3 * 64 * 24)


def test_rate_zero_prunes_nothing_and_gives_the_same_result_with_the_same_order():
    def ordered(model, part, *, masks, generator):
        return fit(model, part, masks=masks, generator=7)

    tickets = imp(net(), SPLIT.train, ordered, rounds=2, rate=0, generator=0)
    assert all(ticket.density == 1 for ticket in tickets)
    assert all(same(ticket.model.state_dict(), tickets[0].model.state_dict()) for ticket in tickets)


def test_rewinding_puts_the_weights_back_to_that_step_of_the_first_training():
    model = net()
    tickets = imp(model, SPLIT.train, fit, rounds=2, rewind_step=10, generator=0)
    twin = net()
    train.fit(twin, SPLIT.train, steps=10, optimizer=SGD, generator=tickets[0].seed)
    assert all(same(dict(ticket.init_state), dict(twin.state_dict())) for ticket in tickets)
    with pytest.raises(InputError, match="40"):
        imp(model, SPLIT.train, fit, rounds=1, rewind_step=40)


def test_a_ticket_keeps_what_was_measured_of_it():
    watch = train.Watch({"norm": lambda model: model.logits.weight.norm()}, at=10)
    tickets = imp(
        net(), SPLIT.train, functools.partial(fit, watch=watch), rounds=1, generator=0,
        evaluate=functools.partial(train.accuracy, data=SPLIT.test),
    )  # fmt: skip
    for ticket in tickets:
        assert ticket.accuracy == train.accuracy(ticket.model, SPLIT.test) > 0.3  # chance is 0.1
        assert ticket.watched.step.values.tolist() == [0, 10, 20, 30]
        assert len(ticket.history.step) == 30
    assert tickets[0].seed != tickets[1].seed


def test_adam_moves_no_pruned_weight():
    adam = functools.partial(torch.optim.Adam, lr=0.01)

    def by_adam(model, part, **settings):
        return train.fit(model, part, steps=30, optimizer=adam, **settings)

    for ticket in imp(net(), SPLIT.train, by_adam, rounds=2, rate=0.5, generator=0):
        trained = Masks({name: ticket.model.get_parameter(name) != 0 for name in ticket.masks})
        assert trained & ticket.masks == trained


def test_bad_settings_are_named():
    for settings, word in (
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1, "rate": 1.0}, "rate"),
        ({"rounds": 1, "output_rate": -0.1}, "output_rate"),
        ({"rounds": 1, "output_rate": 0.1, "scope": "global"}, "scope='layer'"),
        ({"rounds": 1, "rewind_step": -1}, "rewind_step"),
    ):
        with pytest.raises(InputError, match=word):
            imp(net(), SPLIT.train, fit, **settings)
    assert Ticket(Masks.ones(net()), net().state_dict(), 1.0).model is None
