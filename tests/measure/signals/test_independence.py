import functools
import math

import pytest
import torch
from torch import nn

from phenoscope import measure, models
from phenoscope.core.errors import InputError
from phenoscope.measure.signals import independence

he = functools.partial(models.init_gaussian, sigma_w2=2.0, sigma_b2=0.0)


def two_layers(shape, num_classes, *, act=nn.ReLU, width=512, generator=None):
    net = nn.Sequential(nn.Linear(math.prod(shape), width), act(), nn.Linear(width, width), act(), nn.Linear(width, 2))
    he(net, generator=generator)
    return net


def inputs(n=2, d=20):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_a_random_readout_is_independent_and_a_mean_is_not():
    random, mean = (
        measure.gradient_independence(two_layers, inputs(), readout=readout, generator=0)
        for readout in ("random", "mean")
    )
    assert random.layer.values.tolist() == ["2"] and random.true.shape == (1, 20)
    # a ratio of one net spreads by some 7 percent at width 512 and two inputs, the mean of twenty by 1.6
    assert random.ratio.item() == pytest.approx(1, abs=0.06) and bool(random.holds)
    assert mean.ratio.item() == pytest.approx(1 + 1 / math.pi, abs=0.08) and not bool(mean.holds)
    assert bool((mean.low < mean.ratio) & (mean.ratio < mean.high))


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


def test_an_odd_activation_keeps_a_mean_readout_independent():
    found = measure.gradient_independence(
        functools.partial(two_layers, act=Erf), inputs(), readout="mean", repeats=20, generator=0
    )
    assert found.ratio.item() == pytest.approx(1, abs=0.06) and bool(found.holds)


def test_borrowed_gradients_are_those_written_out():
    own, other, x = two_layers((20,), 2, width=9, generator=1), two_layers((20,), 2, width=9, generator=2), inputs(3)
    v = torch.randn(9, generator=torch.Generator().manual_seed(5)) / 3
    pre = own[0](x), own[2](torch.relu(own[0](x)))
    for twin, weight in ((None, own[2].weight), (other, other[2].weight)):
        found = independence._squared_gradients(own, twin, x, "random", 5)
        expected = ((v * (pre[1] > 0)) @ weight).square().sum().double()
        torch.testing.assert_close(found["2"], expected, rtol=1e-5, atol=0)
    assert all(parameter.grad is None for parameter in own.parameters()) and not own[0]._forward_hooks


def fixed(shape, num_classes):
    return two_layers(shape, num_classes, width=30, generator=0)


def test_a_network_that_never_changes_borrows_from_itself():
    found = measure.gradient_independence(fixed, inputs(), repeats=3, generator=0)
    torch.testing.assert_close(torch.tensor(found.ratio.values), torch.ones(1, dtype=torch.float64), rtol=1e-6, atol=0)


class Loop(nn.Module):
    def __init__(self, width=64, generator=None):
        super().__init__()
        self.into, self.again, self.readout = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)
        models.init_gaussian(self, sigma_w2=1.0, generator=generator)

    def forward(self, x):
        state = torch.tanh(self.into(x[:, 0]))
        for t in range(1, x.shape[1]):
            state = torch.tanh(self.again(state) + self.into(x[:, t]))
        return self.readout(state)


def test_every_use_of_shared_weights_counts():
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = measure.gradient_independence(Loop, x, repeats=6, generator=0)
    assert found.layer.values.tolist() == ["again[0]", "again[1]", "again[2]"]
    assert bool((found.ratio > 0.5).all()) and bool((found.ratio < 2).all())


def test_convolutions_and_in_place_activations():
    def make(generator=None):
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(128, 16), nn.ReLU(inplace=True), nn.Linear(16, 2),
        )  # fmt: skip
        he(net, generator=generator)
        return net

    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = measure.gradient_independence(make, x, repeats=3, generator=0)
    assert found.layer.values.tolist() == ["2", "5"] and bool((found.true > 0).all())
    again = measure.gradient_independence(make, x, repeats=3, generator=0)
    assert found.identical(again)


def test_tokens_go_through_embeddings():
    def make(generator=None):
        net = nn.Sequential(nn.Embedding(7, 16), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 2))
        he(net, generator=generator)
        return net

    found = measure.gradient_independence(make, torch.randint(7, (5, 3)), repeats=3, generator=0)
    assert found.layer.values.tolist() == ["2"]


def test_what_it_does_not_suit_is_refused():
    x = inputs()
    with pytest.raises(InputError, match='"random" or "mean"'):
        measure.gradient_independence(two_layers, x, readout="sum")
    with pytest.raises(InputError, match="at least 2 repeats"):
        measure.gradient_independence(two_layers, x, repeats=1)
    with pytest.raises(InputError, match="gru is a GRU"):
        measure.gradient_independence(models.gru, torch.ones(2, 1, 8))
    with pytest.raises(InputError, match="two layers of weights"):
        measure.gradient_independence(lambda: nn.Linear(20, 2), x)
    with pytest.raises(InputError, match="two layers of weights"):
        measure.gradient_independence(lambda: nn.Sequential(nn.Linear(20, 5), nn.Linear(5, 2)), x)

    with pytest.raises(InputError, match="must be linear"):
        measure.gradient_independence(
            lambda: nn.Sequential(nn.Conv1d(1, 3, 2), nn.Conv1d(3, 3, 2), nn.Conv1d(3, 2, 1)), torch.ones(2, 1, 8)
        )

    class Twice(Loop):
        def forward(self, x):
            return super().forward(x) + self.readout(torch.ones(len(x), 64))

    with pytest.raises(InputError, match="used 2 times"):
        measure.gradient_independence(Twice, torch.ones(2, 3, 4))
