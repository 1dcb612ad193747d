import copy
import functools

import pytest
import torch
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, imp, one_shot, retrain, retraining

SPLIT = data.digits(train=400)
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
PLAIN = functools.partial(torch.optim.SGD, lr=0.1)
T, BACK = 30, 19  # seven batches in an epoch: step 11 lies inside the second
RECIPE = dict(steps=T, schedule=train.step_decay(T), batch_size=64)
MODES = ("finetune", "weight-rewind", "lr-rewind")


def net():
    return models.mlp((1, 8, 8), 10, width=(24, 16), generator=0)


@functools.cache
def dense(optimizer=SGD):
    """A trained network, its checkpoints and the optimizer's memory after step T - BACK."""
    model, memory = net(), {}
    updater, count = optimizer(model.parameters()), iter(range(1, T + 1))

    def log(loss):
        memory[next(count)] = copy.deepcopy(updater.state_dict())

    trained = train.fit(
        model, SPLIT.train, optimizer=updater, states=train.States(at=1), log=log, generator=5, **RECIPE
    )  # fmt: skip
    return trained, memory


def again(model, **settings):
    return retrain(model, SPLIT.train, **{"optimizer": SGD, "generator": 5, "back": BACK, **RECIPE, **settings})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", [PLAIN, SGD])
@pytest.mark.parametrize("back", [BACK, 2, 14, T])
def test_rewinding_weights_that_were_not_pruned_repeats_the_first_training_bit_for_bit(optimizer, back):
    trained, memory = dense(optimizer)
    model = copy.deepcopy(trained.model)
    held = memory[T - back] if optimizer is SGD and back < T else None
    settings = dict(masks=Masks.ones(model), mode="weight-rewind", checkpoints=trained.states, back=back)
    repeated = again(model, optimizer=optimizer, optimizer_state=held, **settings)
    assert same(model.state_dict(), trained.model.state_dict())
    assert repeated.history.loss.values.tolist() == trained.history.loss.values[T - back :].tolist()
    if held:  # with the same weights, rates and batches but another memory the way is another one
        again(model, optimizer=optimizer, **settings)
        assert not same(model.state_dict(), trained.model.state_dict())


def test_the_three_ways_start_where_the_paper_says_and_differ_in_nothing_but_weights_and_rates():
    trained, _ = dense()
    masks = one_shot(trained.model, density=0.2)
    for mode in MODES:
        model = copy.deepcopy(trained.model)
        done = again(model, masks=masks, mode=mode, checkpoints=trained.states, states=train.States([0]))
        source = copy.deepcopy(trained.model)
        if mode == "weight-rewind":
            source.load_state_dict(trained.states[T - BACK])
        assert same(done.states[0], masks.apply_(source).state_dict())  # biases too
        assert len(done.history.step) == BACK  # an equal budget
        kept = Masks({name: model.get_parameter(name) != 0 for name in masks})
        assert kept == masks and sum(kept.counts.values()) == round(0.2 * (64 * 24 + 24 * 16 + 160))
    for mode in MODES:  # no step at all leaves the pruned network
        model = copy.deepcopy(trained.model)
        done = again(model, masks=masks, mode=mode, back=0)
        assert same(model.state_dict(), masks.apply_(copy.deepcopy(trained.model)).state_dict())
        assert not len(done.history.step)


def test_the_rates_are_those_of_the_steps_made_again():
    schedule = train.step_decay(T)  # 1, at 15 a tenth, at 22 a hundredth
    assert [retraining("finetune", steps=T, back=BACK, schedule=schedule).schedule(s) for s in (0, 18)] == [0.1**2] * 2
    for mode in ("weight-rewind", "lr-rewind"):
        plan = retraining(mode, steps=T, back=BACK, schedule=schedule)
        assert [plan.schedule(step) for step in range(plan.steps)] == [schedule(step) for step in range(T - BACK, T)]
        assert plan.start == (T - BACK if mode == "weight-rewind" else None)
    assert retraining("weight-rewind", steps=T).start == 0
    assert retraining("lr-rewind", steps=T).steps == T


def test_it_is_what_a_loop_of_torchs_own_makes():
    trained, _ = dense()
    theirs, ours = copy.deepcopy(trained.model), copy.deepcopy(trained.model)
    layers = [(module, "weight") for module in theirs if isinstance(module, nn.Linear)]
    torch.nn.utils.prune.global_unstructured(
        layers, pruning_method=torch.nn.utils.prune.L1Unstructured, amount=0.75
    )  # fmt: skip
    masks = one_shot(ours, density=0.25)
    assert masks == Masks.from_torch(theirs)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    generator, step = torch.Generator().manual_seed(5), 0
    while step < T:
        for rows in torch.randperm(400, generator=generator).split(64):
            if step < T:
                optimizer.param_groups[0]["lr"] = 0.1 * (1 if step < 15 else 0.1 if step < 22 else 0.01)
                optimizer.zero_grad()
                nn.functional.cross_entropy(theirs(SPLIT.train[0][rows]), SPLIT.train[1][rows]).backward()
                optimizer.step()
            step += 1
    again(ours, masks=masks, mode="lr-rewind", back=T)
    for layer, _ in layers:
        torch.nn.utils.prune.remove(layer, "weight")
    for name, value in ours.state_dict().items():
        # sums in another order are rounded otherwise; thirty steps carry 1e-7 to at most 1e-5
        torch.testing.assert_close(value, theirs.state_dict()[name], atol=1e-5, rtol=0)


def test_what_the_optimizer_remembers_of_pruned_weights_is_gone():
    trained, memory = dense()
    masks = one_shot(trained.model, density=0.2)
    made = []

    def sgd(parameters):
        made.append(torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
        return made[-1]

    model = copy.deepcopy(trained.model)
    settings = dict(masks=masks, mode="weight-rewind", checkpoints=trained.states, optimizer=sgd)
    before = copy.deepcopy(memory[T - BACK])
    again(model, optimizer_state=memory[T - BACK], **settings)
    for name, (parameter, mask) in masks.within(model).items():
        momentum = made[-1].state[parameter]["momentum_buffer"]
        assert not momentum[~mask].any() and momentum[mask].any(), name
    for entry, was in zip(memory[T - BACK]["state"].values(), before["state"].values(), strict=True):
        assert torch.equal(entry["momentum_buffer"], was["momentum_buffer"])  # the user's own is left


def test_a_scheduler_of_torchs_is_gone_through_an_epoch_at_a_time():
    trained, _ = dense()
    masks = one_shot(trained.model, density=0.3)
    steps = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 3])
    line = functools.partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.2, total_iters=4)
    for theirs, ours in (
        (steps, lambda step: 0.1 ** ((step >= 14) + (step >= 21))),
        (line, lambda step: 0.2 + 0.2 * (step // 7)),
    ):
        one, other = copy.deepcopy(trained.model), copy.deepcopy(trained.model)
        again(one, masks=masks, schedule=theirs)
        again(other, masks=masks, schedule=ours)
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], atol=1e-6, rtol=0)  # the rates' own rounding


def test_where_the_rate_does_not_change_rewinding_it_is_fine_tuning_and_says_so():
    trained, _ = dense()
    masks = one_shot(trained.model, density=0.3)
    found = []
    for mode in ("lr-rewind", "finetune"):
        for settings in ({"schedule": None}, {"back": 5}):
            model = copy.deepcopy(trained.model)
            with pytest.warns(UserWarning, match="does not change"):
                again(model, masks=masks, mode=mode, **settings)
            found.append(model.state_dict())
    assert same(found[0], found[2]) and same(found[1], found[3]) and not same(found[0], found[1])


def test_loaders_whole_batches_and_settings_of_fit_go_through():
    trained, _ = dense()
    masks, x, y = one_shot(trained.model, density=0.3), *SPLIT.train
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=100)
    watch = train.Watch({"norm": lambda model: model.logits.weight.norm()}, at=10)
    for part, size in ((loader, 64), (SPLIT.train, None)):
        done = retrain(
            copy.deepcopy(trained.model), part, masks=masks, optimizer=SGD, steps=T, back=20, watch=watch,
            schedule=RECIPE["schedule"], batch_size=size,
        )  # fmt: skip
        assert done.watched.step.values.tolist() == [0, 10, 20]


def test_bad_settings_are_named():
    trained, memory = dense()
    masks = Masks.ones(trained.model)
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau)
    standing = torch.optim.lr_scheduler.StepLR(SGD(net().parameters()), 1)
    for settings, word in (
        ({"mode": "rewind"}, "mode must be"),
        ({"back": T + 1}, "back must lie"),
        ({"back": -1}, "back must lie"),
        ({"mode": "weight-rewind"}, r"States\(\[11\]\)"),
        ({"mode": "weight-rewind", "checkpoints": {11: {"a": torch.zeros(1)}}}, "does not fit"),
        ({"optimizer_state": memory[11]}, "weight-rewind"),
        ({"mode": "weight-rewind", "optimizer_state": memory[11]}, "weight-rewind needs"),
        ({"optimizer": SGD(net().parameters())}, "what makes one"),
        ({"schedule": plateau}, "follows a measurement"),
        ({"schedule": standing}, "belongs to another optimizer"),
        ({"masks": Masks({"nowhere": torch.ones(2, 2)})}, "nowhere"),
    ):
        model = copy.deepcopy(trained.model)
        with pytest.raises(InputError, match=word):
            again(model, **{"masks": masks, **settings})
        assert same(model.state_dict(), trained.model.state_dict())


def fit(model, part, **settings):
    return train.fit(model, part, **{"optimizer": SGD, **RECIPE, **settings})


def test_rounds_of_pruning_go_on_from_the_round_before_or_back_to_one_step_of_the_first_training():
    model = net()
    for mode in MODES:
        plan = retraining(mode, steps=T, back=BACK, schedule=RECIPE["schedule"])
        tickets = imp(model, SPLIT.train, fit, rounds=3, rate=0.4, scope="global", retrain=plan, generator=3)
        twin = net()
        first = train.fit(
            twin, SPLIT.train, optimizer=SGD, generator=tickets[0].seed, states=train.States([T - BACK]), **RECIPE
        )  # fmt: skip
        assert same(tickets[0].model.state_dict(), twin.state_dict())
        for number in (1, 2, 3):
            ticket, before = tickets[number], tickets[number - 1]
            source = first.states[T - BACK] if mode == "weight-rewind" else before.model.state_dict()
            assert same(dict(ticket.init_state), dict(source))
            assert ticket.masks == one_shot(before.model, density=0.6**number, within=before.masks)
            assert len(ticket.history.step) == BACK
            byhand = ticket.network(model)
            train.fit(
                byhand, SPLIT.train, steps=BACK, optimizer=SGD, schedule=plan.schedule, masks=ticket.masks,
                generator=ticket.seed,
            )  # fmt: skip
            assert same(byhand.state_dict(), ticket.model.state_dict())


def test_going_back_by_all_steps_is_the_lottery_tickets_way():
    plan = retraining("weight-rewind", steps=T, schedule=RECIPE["schedule"])
    ours = imp(net(), SPLIT.train, fit, rounds=2, rate=0.4, retrain=plan, generator=3)
    theirs = imp(net(), SPLIT.train, fit, rounds=2, rate=0.4, generator=3)
    assert all(same(a.model.state_dict(), b.model.state_dict()) for a, b in zip(ours, theirs, strict=True))
    for settings in ({"retrain": plan, "rewind_step": 3}, {"retrain": retraining(steps=T, back=0)}):
        with pytest.raises(InputError, match="at least one step"):
            imp(net(), SPLIT.train, fit, rounds=1, **settings)
