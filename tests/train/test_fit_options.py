"""What `fit` does beyond plain training: steps, objectives, masks, watches, states, stopping."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.train import States, Watch, accuracy, build, cosine, fit, outputs

SPLIT = data.digits(train=300)
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def made(seed=0):
    return build(small, generator=seed)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_steps_are_counted_across_epochs_and_agree_with_epochs():
    one, two, three = made(), made(), made()
    fit(one, SPLIT.train, steps=10, optimizer=SGD, generator=0)  # 5 batches an epoch
    result = fit(two, SPLIT.train, epochs=2, optimizer=SGD(two.parameters()), generator=0)
    assert same(one, two) and result.history.sizes["step"] == 10
    assert fit(three, SPLIT.train, steps=7, optimizer=SGD, generator=0).history.sizes["step"] == 7
    loader = DataLoader(TensorDataset(*SPLIT.train), batch_size=100)
    assert fit(made(), loader, steps=7, optimizer=SGD).history.sizes["step"] == 7


def test_without_a_batch_size_every_step_takes_all_examples_in_order():
    model, twin = made(), made()
    fit(model, SPLIT.train, steps=3, optimizer=SGD, batch_size=None)
    optimizer = SGD(twin.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(twin(SPLIT.train[0]), SPLIT.train[1]).backward()
        optimizer.step()
    assert same(model, twin)


def test_a_schedule_of_steps_scales_the_rate_before_every_step_and_gives_it_back():
    model, twin = made(), made()
    optimizer, by_hand = SGD(model.parameters()), SGD(twin.parameters())
    fit(model, SPLIT.train, steps=5, optimizer=optimizer, batch_size=None, schedule=cosine(5))
    for step in range(5):
        by_hand.param_groups[0]["lr"] = 0.1 * cosine(5)(step)
        by_hand.zero_grad()
        functional.cross_entropy(twin(SPLIT.train[0]), SPLIT.train[1]).backward()
        by_hand.step()
    assert same(model, twin)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_an_objective_replaces_the_loss():
    def penalized(model, x, y):
        return functional.cross_entropy(model(x), y) + sum(p.square().sum() for p in model.parameters())

    def by_decay(parameters):
        return torch.optim.SGD(parameters, lr=0.01, weight_decay=2.0)

    model, twin = made(), made()
    plain = functools.partial(torch.optim.SGD, lr=0.01)
    fit(model, SPLIT.train, steps=20, optimizer=plain, objective=penalized, generator=0)
    fit(twin, SPLIT.train, steps=20, optimizer=by_decay, generator=0)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)  # the gradient of |w|^2 is 2 w; the sums round differently


@pytest.mark.parametrize("optimizer", [SGD, functools.partial(torch.optim.AdamW, lr=0.01)])
def test_masked_weights_are_zero_from_the_start_and_the_others_train_as_in_the_smaller_network(optimizer):
    model, smaller = made(), nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    with torch.no_grad():
        smaller[1].weight.copy_(model[1].weight[:8])
        smaller[1].bias.copy_(model[1].bias[:8])
        smaller[3].weight.copy_(model[3].weight[:, :8])
        smaller[3].bias.copy_(model[3].bias)
    masks = {"3.weight": torch.ones(10, 16).index_fill_(1, torch.arange(8, 16), 0)}
    result = fit(model, SPLIT.train, steps=30, optimizer=optimizer, masks=masks, states=States(at=10), generator=0)
    fit(smaller, SPLIT.train, steps=30, optimizer=optimizer, generator=0)
    assert all((state["3.weight"][:, 8:] == 0).all() for state in result.states.values())
    # a unit without outgoing weights is as good as none; sums of 16 and of 8 terms round differently
    assert torch.allclose(model[3].weight[:, :8], smaller[3].weight, atol=1e-4)


def test_training_ends_at_a_target_of_the_epochs_mean_loss():
    result = fit(made(), SPLIT.train, epochs=50, optimizer=SGD, stop_at=0.3, generator=0)
    means = result.history.loss.values.reshape(-1, 5).mean(1)
    assert 2 < len(means) < 50
    assert means[-1] <= 0.3 < means[:-1].min()


def test_a_watch_sees_the_network_in_evaluation_mode_at_its_steps_and_changes_nothing():
    modes = []

    def observe(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return accuracy(model, SPLIT.test)

    model, twin = made(), made()
    watch = Watch({"accuracy": observe, "bias": lambda model: model[3].bias}, at=4)
    seen = fit(model, SPLIT.train, steps=10, optimizer=SGD, watch=watch, generator=0).watched
    fit(twin, SPLIT.train, steps=10, optimizer=SGD, generator=0)
    assert same(model, twin) and set(modes) == {(False, False)}
    assert seen.step.values.tolist() == [0, 4, 8, 10]  # every fourth, and the last
    assert seen.accuracy.values[0] == accuracy(made(), SPLIT.test)
    assert seen.accuracy.values[-1] == accuracy(model, SPLIT.test)
    assert seen.bias.dims == ("step", "bias_0")
    assert seen.bias.values[-1] == pytest.approx(model[3].bias.detach().numpy())
    chosen = fit(made(), SPLIT.train, steps=10, optimizer=SGD, watch=Watch(watch.observers, at=(9, 0)), generator=0)
    assert chosen.watched.step.values.tolist() == [0, 9]


@pytest.mark.parametrize("on_disk", [False, True])
def test_states_are_copies_of_their_step(on_disk, tmp_path):
    model = made()
    wish = States(at=(0, 5, 10), folder=tmp_path / "states" if on_disk else None)
    states = fit(model, SPLIT.train, steps=10, optimizer=SGD, states=wish, generator=0).states
    assert list(states) == [0, 5, 10] and len(wish) == 0
    half = made()
    assert all(torch.equal(states[0][name], value) for name, value in half.state_dict().items())
    fit(half, SPLIT.train, steps=5, optimizer=SGD, generator=0)
    assert all(torch.equal(states[5][name], value) for name, value in half.state_dict().items())
    half.load_state_dict(states[10])
    assert same(half, model)
    with pytest.raises(KeyError, match="no state of step 7"):
        states[7]
    if on_disk:
        with pytest.raises(InputError, match="holds states already"):
            fit(model, SPLIT.train, steps=10, optimizer=SGD, states=wish)


def test_outputs_are_those_of_the_network_whatever_the_batch_and_the_form_of_the_data():
    model = made()
    x, y = SPLIT.test
    expected = model(x).detach()
    for given in (x, (x, y), DataLoader(TensorDataset(x, y), batch_size=100)):
        for size in (7, 10_000):
            assert torch.allclose(outputs(model, given, batch_size=size), expected, atol=1e-5)  # order of sums
    assert outputs(model, x[:1]).shape == (1, 10)


def test_bad_input_is_named():
    train = functools.partial(fit, made(), SPLIT.train, optimizer=SGD)
    with pytest.raises(InputError, match="either steps or epochs"):
        train()
    with pytest.raises(InputError, match="not both"):
        train(steps=1, epochs=1)
    with pytest.raises(InputError, match="steps must be"):
        train(steps=0)
    with pytest.raises(InputError, match="watch asks for step 5"):
        train(steps=4, watch=Watch({"one": lambda model: 1}, at=[5]))
    with pytest.raises(InputError, match="states asks for step 5"):
        train(steps=4, states=States(at=[5]))
    with pytest.raises(InputError, match=r"'7\.weight', which is no parameter"):
        train(steps=1, masks={"7.weight": torch.ones(1)})
    with pytest.raises(InputError, match=r"shape \(1,\), the parameter \(16, 64\)"):
        train(steps=1, masks={"1.weight": torch.ones(1)})
    with pytest.raises(InputError, match="'word' gave a str"):
        train(steps=1, watch=Watch({"word": lambda model: "no"}, at=1))
    with pytest.raises(InputError, match="at least one observer"):
        Watch({}, at=1)
    with pytest.raises(InputError, match="is never"):
        States(at=0)
    with pytest.raises(InputError, match="make one"):
        fit(made(), SPLIT.train, steps=1, optimizer="sgd")
