"""A fleet's members are what `fit` makes of each alone."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data
from phenoscope.train import States, Watch, accuracy, build, cosine, fit, fleet, outputs

SPLIT = data.digits(train=200)
X, Y = SPLIT.train
TEST = tuple(part[:100] for part in SPLIT.test)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
SEEDS = [5, 6, 7]


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 10))


def normed():
    layers = [nn.Linear(64, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.LayerNorm(16)]
    return nn.Sequential(nn.Flatten(), *layers, nn.GELU(), nn.Linear(16, 10))


def cnn():
    first = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(8, 8, 3, padding="same", groups=2), nn.GroupNorm(4, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(nn.Sequential(*first), nn.Sequential(*second), nn.Flatten(), nn.Linear(32, 10))


def cnn1d():
    layers = [nn.Conv1d(1, 6, 5, stride=2, dilation=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 6, 3), nn.Tanh()]
    return nn.Sequential(nn.Flatten(2), *layers, nn.Flatten(), nn.Linear(72, 10))


def tied():
    shared = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(64, 10))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 24), nn.Linear(24, 24, bias=False)
        self.norm, self.last = nn.BatchNorm1d(24), nn.Linear(24, 10)
        self.first.bias.requires_grad_(False)

    def forward(self, x):
        h = torch.relu(self.first(x.flatten(1)))
        return self.last(h + self.norm(self.second(h)))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU, **settings):
        super().__init__()
        self.layers = kind(8, 8, num_layers=2, **settings)
        self.last = nn.Linear(8 * (1 + bool(settings.get("bidirectional"))), 10)

    def forward(self, x):
        rows = x.squeeze(1) if self.layers.batch_first else x.squeeze(1).transpose(0, 1)
        seen = self.layers(rows)[0]
        return self.last(seen[:, -1] if self.layers.batch_first else seen[-1])


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.last = kind(8, 12), nn.Linear(12, 10)

    def forward(self, x):
        hidden = None
        for row in x.squeeze(1).unbind(1):
            hidden = self.cell(row, hidden)
        return self.last(hidden[0] if isinstance(hidden, tuple) else hidden)


def assert_alike(member, alone, tolerance=1e-4):
    """Weights by norm for each tensor, and outputs; single precision over 100 steps, in sums of another order."""
    for (name, ours), theirs in zip(member.state_dict().items(), alone.state_dict().values(), strict=True):
        assert (ours - theirs).double().norm() <= tolerance * theirs.double().norm(), name
    expected = outputs(alone, TEST)
    assert (outputs(member, TEST) - expected).norm() <= tolerance * expected.norm()


NETWORKS = {
    "mlp": mlp,
    "normed": normed,
    "cnn": cnn,
    "cnn1d": cnn1d,
    "tied": tied,
    "residual": Residual,
    "gru": functools.partial(Recurrent, batch_first=True),
    "rnn": functools.partial(Recurrent, nn.RNN, nonlinearity="relu"),
    "lstm": functools.partial(Recurrent, nn.LSTM, bidirectional=True, batch_first=True),
    "gru cell": functools.partial(Cells, nn.GRUCell),
    "rnn cell": functools.partial(Cells, nn.RNNCell),
    "lstm cell": functools.partial(Cells, nn.LSTMCell),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_after_a_hundred_steps_a_member_is_what_fit_makes_of_it_alone(name):
    make, batched = NETWORKS[name], name in ("mlp", "normed", "cnn", "cnn1d", "tied")
    steps = 100 if batched or name == "residual" else 40  # recurrent ones take long
    settings = {"steps": steps, "optimizer": SGD, "batch_size": 48}
    together = fleet(make, SPLIT.train, members=2, generator=SEEDS[:2], **settings)
    assert (together.program.steps is not None) == batched
    predicted = together.outputs(TEST[0], batch_size=33)
    for index, seed in enumerate(SEEDS[:2]):
        alone = build(make, generator=seed)
        history = fit(alone, SPLIT.train, generator=seed, **settings).history
        assert_alike(together[index], alone)
        assert torch.allclose(predicted[index], outputs(alone, TEST), atol=1e-3)
        assert together.history.loss.sel(member=index).values == pytest.approx(history.loss.values, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(torch.optim.SGD, lr=0.05),
        functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
        functools.partial(torch.optim.SGD, lr=0.02, momentum=0.8, dampening=0.3),
        functools.partial(torch.optim.Adam, lr=0.003, weight_decay=0.01),
        functools.partial(torch.optim.AdamW, lr=0.003, betas=(0.8, 0.95), eps=1e-5),
        functools.partial(torch.optim.RMSprop, lr=0.001, weight_decay=0.01),
        functools.partial(torch.optim.RMSprop, lr=0.001, centered=True, momentum=0.5, alpha=0.9),
    ],
)
def test_every_optimizer_is_followed_with_rates_by_member_and_a_schedule(optimizer):
    rates, decays = [0.004, 0.002], [0.0, 0.02]
    for own in ({}, {"lr": rates, "weight_decay": decays}):
        settings = {"steps": 50, "schedule": cosine(60)}
        together = fleet(mlp, SPLIT.train, generator=SEEDS[:2], optimizer=optimizer, **own, **settings)
        for index, seed in enumerate(SEEDS[:2]):
            alone = build(mlp, generator=seed)
            each = {name: values[index] for name, values in own.items()}
            fit(alone, SPLIT.train, generator=seed, optimizer=functools.partial(optimizer, **each), **settings)
            assert_alike(together[index], alone)


def test_groups_of_parameters_keep_their_own_settings():
    def grouped(parameters):
        groups = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in parameters]
        return torch.optim.SGD(groups, lr=0.05)

    together = fleet(mlp, SPLIT.train, generator=[3], steps=50, optimizer=grouped)
    alone = build(mlp, generator=3)
    fit(alone, SPLIT.train, generator=3, steps=50, optimizer=grouped)
    assert_alike(together[0], alone)


def adversarial(model, x, y):
    slope = torch.func.grad(lambda shift: functional.cross_entropy(model(x + shift), y))(torch.zeros_like(x))
    return functional.cross_entropy(model(x + 0.3 * slope.sign()), y)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": None},
        {"objective": adversarial},
        {"loss_fn": functools.partial(functional.cross_entropy, label_smoothing=0.1)},
    ],
    ids=["batches", "full batch", "objective", "another loss"],
)
def test_masks_labels_rows_and_rates_may_differ_by_member(settings):
    draw = torch.Generator().manual_seed(0)
    masks = [{"1.weight": (torch.rand(24, 64, generator=draw) < 0.3).float()}, None]
    masks.append({"3.weight": torch.rand(16, 24, generator=draw) < 0.5})
    labels = torch.randint(10, (3, 200), generator=draw)
    rows = torch.stack([torch.randperm(200, generator=draw)[:150] for _ in range(3)])
    rates = [0.1, 0.02, 0.05]
    wishes = {
        "steps": 30,
        "watch": Watch({"accuracy": lambda m: accuracy(m, TEST), "bias": lambda m: m[1].bias}, at=10),
        "states": States(at=(0, 7, 30)),
    } | settings
    own = {"masks": masks, "labels": labels, "rows": rows, "lr": rates}
    together = fleet(mlp, SPLIT.train, generator=SEEDS, optimizer=SGD, **own, **wishes)
    for i, seed in enumerate(SEEDS):
        alone, chosen = build(mlp, generator=seed), rows[i]
        optimizer = functools.partial(SGD, lr=rates[i])
        own_data = (X[chosen], labels[i][chosen])
        result = fit(alone, own_data, generator=seed, optimizer=optimizer, masks=masks[i], **wishes)
        assert_alike(together[i], alone)
        for name, mask in (masks[i] or {}).items():
            assert (together.parameters[name][i][mask == 0] == 0).all()
        states = together.states.member(i)
        assert list(states) == [0, 7, 30]
        for step in states:
            for name, value in result.states[step].items():
                assert torch.allclose(states[step][name], value, atol=1e-4)
        seen = together.watched.sel(member=i)
        assert seen.bias.dims == ("step", "bias_0") and seen.step.values.tolist() == [0, 10, 20, 30]
        assert seen.bias.values == pytest.approx(result.watched.bias.values, abs=1e-4)
        assert seen.accuracy.values == pytest.approx(result.watched.accuracy.values, abs=0.02)  # two of 100 images


def test_members_may_have_data_of_their_own():
    pairs = [(X[:100], Y[:100]), (X[100:], Y[100:])]
    together = fleet(mlp, pairs, members=2, generator=SEEDS[:2], epochs=5, optimizer=SGD, batch_size=32)
    for index, pair in enumerate(pairs):
        alone = build(mlp, generator=SEEDS[index])
        fit(alone, pair, generator=SEEDS[index], epochs=5, optimizer=SGD, batch_size=32)
        assert_alike(together[index], alone)


def test_other_targets_and_examples_without_a_label_train_as_alone():
    regression = (X, functional.one_hot(Y, 10).float())
    unlabeled = (X, Y.masked_fill(torch.arange(200) % 3 == 0, -100))
    soft = (X, functional.one_hot(Y, 10).float() * 0.9 + 0.01)
    for pair, loss_fn in (
        (regression, functional.mse_loss),
        (unlabeled, functional.cross_entropy),
        (soft, functional.cross_entropy),
    ):
        settings = {"steps": 30, "optimizer": SGD, "loss_fn": loss_fn}
        together = fleet(mlp, pair, generator=[1, 2], num_classes=10, **settings)
        alone = build(mlp, generator=2)
        fit(alone, pair, generator=2, **settings)
        assert_alike(together[1], alone)


def test_the_same_call_gives_the_same_bits_and_seeds_differ():
    def weights(make, generator):
        trained = fleet(make, SPLIT.train, members=2, generator=generator, steps=12, optimizer=SGD)
        return [tensor.clone() for tensor in trained.parameters.values()]

    for make in (cnn, Residual, lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))):
        state = torch.get_rng_state()
        one, two, drawn = weights(make, [1, 2]), weights(make, [1, 2]), weights(make, 0)
        assert torch.equal(torch.get_rng_state(), state)  # dropout draws from torch's own generator, forked
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(drawn, weights(make, 0), strict=True))
        assert not any(torch.equal(a[0], a[1]) for a in [*one, *drawn] if a.ndim > 2)
