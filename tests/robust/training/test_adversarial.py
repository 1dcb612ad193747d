from functools import partial

import pytest
import torch
from torch import nn

from phenoscope import data, models, robust, train
from phenoscope.core.errors import InputError

SPLIT = data.digits(train=400, scale="unit", generator=0)
ADAM = partial(torch.optim.Adam, lr=3e-3)
BALL = {"eps": 0.1, "clip": (0, 1)}


def network(seed=0):
    return train.build(partial(models.mlp, width=(64,)), shape=(1, 8, 8), num_classes=10, generator=seed)


def robust_accuracy(model):
    return float(robust.evaluate(model, SPLIT.test, **BALL, generator=0).robust_accuracy)


@pytest.fixture(scope="module")
def standard():
    model = network()
    train.fit(model, SPLIT.train, optimizer=ADAM, epochs=15, generator=0)
    return robust_accuracy(model)


@pytest.mark.parametrize("method", ["at", "trades"])
def test_it_makes_a_network_robust(standard, method):
    model = network()
    found = robust.adversarial_train(
        model, SPLIT.train, **BALL, method=method, attack_steps=5, optimizer=ADAM, epochs=15, generator=0
    )
    assert isinstance(found, train.Fit) and found.model is model
    assert robust_accuracy(model) > standard + 0.1


def test_without_weight_on_the_divergence_trades_is_plain_training():
    one, two = network(), network()
    plain = train.fit(one, SPLIT.train, optimizer=ADAM, epochs=2, generator=7)
    found = robust.adversarial_train(
        two, SPLIT.train, **BALL, method="trades", beta=0.0, attack_steps=2, optimizer=ADAM, epochs=2, generator=7
    )
    assert torch.allclose(torch.tensor(plain.history.loss.values), torch.tensor(found.history.loss.values), atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("generator", [3, lambda: torch.Generator().manual_seed(3)])
def test_a_seed_gives_the_same_bits(generator):
    def weights():
        model = network()
        given = generator() if callable(generator) else generator
        robust.adversarial_train(model, SPLIT.train, **BALL, attack_steps=2, optimizer=ADAM, steps=5, generator=given)
        return model.logits.weight

    assert torch.equal(weights(), weights())


def test_another_attack_may_be_given():
    calls = []

    def shift(model, x, y, *, generator):
        calls.append(len(x))
        return x + 0.01

    model = network()
    robust.adversarial_train(model, SPLIT.train, eps=0.0, attack=shift, optimizer=ADAM, steps=3, generator=0)
    assert calls == [64] * 3


def test_running_statistics_are_updated_by_the_training_pass_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    robust.adversarial_train(model, SPLIT.train, **BALL, attack_steps=3, optimizer=ADAM, steps=4, generator=0)
    assert model[2].num_batches_tracked == 4


def test_a_fleet_trains_on_the_same_losses(standard):
    objective = partial(robust.adversarial_loss, **BALL, steps=5)
    found = train.fleet(
        partial(models.mlp, width=(64,)), SPLIT.train, members=2, epochs=15, optimizer=ADAM, objective=objective,
        generator=[0, 1], device="cpu",
    )  # fmt: skip
    accuracies = robust.evaluate(found, SPLIT.test, **BALL, generator=0).robust_accuracy
    assert (accuracies > standard + 0.1).all()


def test_bad_input_is_named():
    normed = partial(models.mlp, width=(8,), norm="batch")
    with pytest.raises(InputError, match="running statistics"):
        train.fleet(
            normed, SPLIT.train, members=2, steps=1, optimizer=ADAM, device="cpu", generator=0,
            objective=partial(robust.adversarial_loss, eps=0.1),
        )  # fmt: skip
    with pytest.raises(InputError, match="'at' and 'trades'"):
        robust.adversarial_train(network(), SPLIT.train, eps=0.1, method="mart", optimizer=ADAM, steps=1)
    with pytest.raises(InputError, match="attack="):
        robust.adversarial_train(
            network(), SPLIT.train, eps=0.1, method="trades", attack=robust.pgd, optimizer=ADAM, steps=1
        )
