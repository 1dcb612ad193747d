import functools

import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from phenoscope import data, train
from phenoscope.core.errors import InputError
from phenoscope.measure import identity_probe
from phenoscope.measure.sweeps.identity import correlation
from phenoscope.theory import single_example_solution

SPLIT = data.digits(scale="unit")
X = SPLIT.train[0][:1]
NOISE = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PROBES = torch.cat([SPLIT.test[0][:40], NOISE])
MSE = {"loss_fn": nn.functional.mse_loss, "batch_size": None}
adam = functools.partial(
    train.fit, steps=400, optimizer=functools.partial(torch.optim.Adam, lr=1e-2), stop_at=1e-7, **MSE
)
probe = functools.partial(identity_probe, generator=0, device="cpu")


def one_filter():
    return nn.Conv2d(1, 1, 5, padding=2, bias=False)


def untrained(model, data, *, generator):
    """A network that is what it is."""


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self, x):
        return self.value.expand_as(x)


def test_one_linear_convolution_learns_the_filter_that_copies():
    report = probe(one_filter, X, PROBES, functools.partial(adam, steps=2000))
    delta = torch.zeros(5, 5)
    delta[2, 2] = 1
    assert report.fitted and float((report.model.weight.detach()[0, 0] - delta).norm()) < 0.1
    assert float(report.corr_identity.min()) > 0.95 and float(report.mse_identity.max()) < 0.05
    assert float(report.contrast[40:].mean()) > 0.8


def test_one_dense_layer_is_the_closed_form_and_random_off_the_example():
    def flat():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.Unflatten(1, (1, 8, 8)))

    seen = {}

    def descend(model, part, *, generator):
        seen["start"] = model[1].weight.detach().clone()
        optimizer = functools.partial(torch.optim.SGD, lr=0.9 * 64 / 2 / float(X.square().sum()))
        return train.fit(model, part, steps=100, optimizer=optimizer, generator=generator, **MSE)

    report = probe(flat, X, PROBES, descend)
    expected = single_example_solution(seen["start"], X)
    torch.testing.assert_close(report.model[1].weight.detach(), expected, rtol=1e-4, atol=1e-5)
    outputs = PROBES.flatten(1) @ expected.T
    torch.testing.assert_close(report.corr_identity, correlation(outputs, PROBES), rtol=0, atol=1e-4)
    assert report.fitted and float(report.corr_identity[40:].mean()) < 0.6


def test_the_identity_and_a_constant_map_get_the_scores_of_their_kind():
    same = probe(lambda: nn.Sequential(nn.Identity(), nn.PReLU(init=1.0)), X, PROBES, untrained)
    ones = torch.ones(80, dtype=torch.float64)
    torch.testing.assert_close(same.corr_identity, ones)
    assert same.fitted and float(same.mse_identity.max()) == 0 and float(same.mse_constant.min()) > 0.1
    constant = probe(lambda: Constant(X[0]), X, PROBES, untrained)
    torch.testing.assert_close(constant.corr_constant, ones)
    assert constant.fitted and float(constant.mse_constant.max()) == 0
    assert float(constant.contrast[40:].mean()) < -0.8  # noise does not resemble the image
    assert float(constant.corr_identity[:40].mean()) > 0.2  # other digits do: the confusion that noise avoids
    answers = train.outputs(constant.model, NOISE)
    assert float(correlation(answers, answers.roll(1, 0)).min()) > 0.9


def test_a_network_that_did_not_learn_is_not_called_constant():
    blank = probe(lambda: Constant(torch.zeros(1, 8, 8)), X, PROBES, untrained)
    assert not blank.fitted and blank.train_error == 1
    assert (blank.corr_identity == 0).all() and (blank.corr_constant == 0).all()
    assert not probe(one_filter, X, PROBES, functools.partial(adam, steps=1)).fitted


def test_the_correlation_is_pearsons():
    a, b = SPLIT.test[0][:5], SPLIT.test[0][5:10]
    found = correlation(a, b)
    for i in range(5):
        assert float(found[i]) == pytest.approx(pearsonr(a[i].flatten().double(), b[i].flatten().double())[0], abs=1e-9)
    assert float(correlation(torch.full((1, 9), 0.1), torch.rand(1, 9))) == 0
    assert float(correlation(a, -3 * a + 2).max()) == pytest.approx(-1)


def test_the_same_seed_gives_the_same_network():
    one, same = (probe(one_filter, X, NOISE, functools.partial(adam, steps=20)) for _ in range(2))
    assert torch.equal(one.model.weight, same.model.weight) and one.train_error == same.train_error


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(InputError, match=r"x must be \(1, ...\)"):
        probe(one_filter, SPLIT.train[0][:2], PROBES, adam)
    with pytest.raises(InputError, match=r"x must be \(1, ...\)"):
        probe(one_filter, X, torch.zeros(3, 1, 4, 4), adam)
    with pytest.raises(InputError, match="is zero"):
        probe(one_filter, torch.zeros(1, 1, 8, 8), PROBES, adam)
    with pytest.raises(InputError, match="keep the shape"):
        probe(lambda: nn.Conv2d(1, 2, 1), X, PROBES, adam)
