from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data, models, robust, train
from phenoscope.core.errors import InputError

DUAL = {"inf": 1, "2": 2, "1": torch.inf}


def network(seed=0):
    return train.build(partial(models.mlp, width=(32,)), shape=(1, 8, 8), num_classes=10, generator=seed)


@pytest.fixture(scope="module")
def trained():
    split = data.digits(train=600, scale="unit", generator=0)
    model = network()
    train.fit(model, split.train, optimizer=partial(torch.optim.Adam, lr=3e-3), epochs=10, generator=0)
    return model, (split.test[0][:200], split.test[1][:200])


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("settings", [{"random_start": False}, {"step_size": 0.3, "generator": 0}])
def test_it_reaches_the_closed_form_worst_loss_of_a_linear_classifier(norm, settings):
    # of two classes with scores (w.x, 0): the worst margin is y w.x minus eps times the dual norm of w
    # (from a random point of a Euclidean ball, steps of the radius halve the angle left; 20 of them are enough)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(12, generator=generator, dtype=torch.float64)
    x = torch.randn(9, 3, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (9,), generator=generator)
    side = 1.0 - 2 * y  # class 0 wants w.x large

    def model(x):
        score = x.flatten(1) @ w
        return torch.stack([score, torch.zeros_like(score)], 1)

    x_adv = robust.pgd(model, x, y, eps=0.3, norm=norm, **settings)
    worst = functional.softplus(-(side * (x.flatten(1) @ w) - 0.3 * w.norm(p=DUAL[norm])))
    found = functional.cross_entropy(model(x_adv), y, reduction="none")
    assert (found <= worst + 1e-12).all()
    assert torch.allclose(found, worst, atol=1e-5)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("loss", ["ce", "margin", functional.cross_entropy])
def test_it_stays_in_the_ball_and_in_the_range_and_raises_the_loss(trained, norm, loss):
    model, (x, y) = trained
    eps = {"inf": 0.1, "2": 0.6, "1": 3.0}[norm]
    x_adv = robust.pgd(model, x, y, eps=eps, norm=norm, loss=loss, clip=(0, 1), generator=0)
    size = (x_adv - x).flatten(1).norm(p={"inf": torch.inf, "2": 2, "1": 1}[norm], dim=1)
    assert (size <= eps * (1 + 1e-5)).all()  # rounding of single precision
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert train.accuracy(model, (x_adv, y)) < train.accuracy(model, (x, y)) - 0.2


def test_the_mean_loss_of_a_user_gives_the_same_attack_as_its_name(trained):
    model, (x, y) = trained
    named, own = (robust.pgd(model, x, y, eps=0.1, loss=each, generator=0) for each in ("ce", functional.cross_entropy))
    assert torch.allclose(named, own, atol=1e-6)


def test_no_example_depends_on_the_others_or_on_the_chunk(trained):
    model, (x, y) = trained
    attack = partial(robust.pgd, model, eps=0.1, norm="2", random_start=False)
    whole = attack(x[:20], y[:20])
    alone = torch.cat([attack(x[i : i + 1], y[i : i + 1]) for i in range(20)])
    assert torch.allclose(whole, alone, atol=1e-5)  # products of other sizes round differently
    drawn = [robust.pgd(model, x, y, eps=0.1, generator=3, chunk=chunk) for chunk in (7, 200)]
    assert (drawn[0] - drawn[1]).abs().median() == 0
    assert torch.allclose(*drawn, atol=1e-5)


def test_more_restarts_never_break_fewer(trained):
    model, (x, y) = trained

    def broken(restarts):
        return model(robust.pgd(model, x, y, eps=0.08, steps=3, restarts=restarts, generator=0)).argmax(1) != y

    one, five = broken(1), broken(5)
    assert not (one & ~five).any()  # the first start is the same
    assert five.sum() >= one.sum()


def test_a_targeted_attack_goes_to_the_class_wanted(trained):
    model, (x, y) = trained
    target = (y + 1) % 10
    x_adv = robust.pgd(model, x, target, eps=0.5, steps=40, targeted=True, restarts=2, clip=(0, 1), generator=0)
    assert train.accuracy(model, (x_adv, target)) > 0.9


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10))
    model[4].weight.requires_grad_(False)
    model(torch.randn(8, 1, 8, 8)).sum().backward()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model[0].weight.grad.clone()
    for training in (False, True):
        robust.pgd(
            model, torch.randn(8, 1, 8, 8), torch.zeros(8, dtype=torch.long), eps=0.1, training=training, generator=0
        )
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, gradient) and model[4].weight.grad is None
    assert [m.training for m in model] == [True, False, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]


def test_by_default_a_network_in_training_mode_is_attacked_in_evaluation_mode(trained):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    x, y = trained[1]
    first, second = (robust.pgd(model, x, y, eps=0.1, random_start=False) for _ in range(2))
    assert torch.equal(first, second)


def test_inside_a_fleets_objective_it_attacks_each_member_as_alone(trained):
    x, y = trained[1]
    nets = [network(seed) for seed in range(3)]
    tensors, _ = torch.func.stack_module_state(nets)
    attack = partial(robust.pgd, eps=0.1, norm="2", clip=(0, 1), random_start=False, restarts=2)

    def one(own, x, y):
        return attack(lambda z: torch.func.functional_call(nets[0], own, (z,)), x, y)

    together = torch.func.vmap(one, in_dims=(0, None, None), randomness="different")(tensors, x, y)
    assert not together.requires_grad  # nothing of the ascent stays in the graph of the training
    for net, found in zip(nets, together, strict=True):
        assert torch.allclose(attack(net, x, y), found, atol=1e-4)


def test_inside_a_fleet_every_member_draws_its_own_start():
    def one(x):
        return robust.pgd(lambda z: z.flatten(1), x, torch.zeros(2, dtype=torch.long), eps=0.1, steps=0)

    found = torch.func.vmap(one, randomness="different")(torch.zeros(2, 2, 1, 3))
    assert not torch.equal(found[0], found[1]) and found.abs().max() <= 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_works_in_the_types_and_shapes_of_the_examples_also_without_gradients_around(dtype):
    for shape in ((1, 5), (1, 2, 7), (1, 3, 4, 4)):
        x = torch.rand(shape, dtype=dtype)
        with torch.no_grad():
            found = robust.pgd(lambda z: z.flatten(1), x, torch.tensor([1]), eps=0.1, restarts=2, generator=0)
        assert found.shape == x.shape and found.dtype == dtype


def test_a_seed_gives_the_same_bits_and_no_radius_gives_the_examples(trained):
    model, (x, y) = trained
    first, second = (robust.pgd(model, x, y, eps=0.1, generator=5) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(robust.pgd(model, x, y, eps=0.0, generator=5), x)


def test_bad_input_is_named(trained):
    model, (x, y) = trained
    for settings, message in [
        ({"norm": "l2"}, "'l2'"),
        ({"eps": -1.0}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"restarts": 0}, "restart"),
        ({"loss": "hinge"}, "'hinge'"),
        ({"clip": (1, 0)}, "low below high"),
        ({"clip": (0.2, 1)}, "Split.range"),
    ]:
        with pytest.raises(InputError, match=message):
            robust.pgd(model, x, y, **{"eps": 0.1, **settings})
    with pytest.raises(InputError, match="one label"):
        robust.pgd(model, x, y[:3], eps=0.1)
    with pytest.raises(InputError, match="floating"):
        robust.pgd(model, x.byte(), y, eps=0.1)
