import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data as data_sets
from phenoscope import models, train
from phenoscope.core.errors import InputError
from phenoscope.landscape import fim_spectrum, fim_trace, top_eigenvalues


def logistic(classes=5, inputs=4, n=200):
    torch.manual_seed(0)
    return nn.Linear(inputs, classes).double(), torch.randn(n, inputs, dtype=torch.float64)


def closed_form(model, x):
    """Logistic regression: mean of (|x|^2 + 1) sum_c p_c (1 - p_c)."""
    p = model(x).detach().softmax(1)
    return float(((x.square().sum(1) + 1) * (p * (1 - p)).sum(1)).mean())


def test_the_trace_of_logistic_regression_is_its_closed_form():
    model, x = logistic()
    found = fim_trace(model, x, draws=20, generator=0)
    assert float(found) == pytest.approx(closed_form(model, x), rel=0.05)  # 4000 draws: standard error about 1 %


def test_labels_of_the_data_would_give_another_number():
    model, x = logistic()
    with torch.no_grad():
        model.weight.mul_(4)
    sampled = float(fim_trace(model, (x, torch.zeros(200, dtype=torch.long)), draws=5, generator=0))
    y = model(x).argmin(1)  # labels that the model thinks unlikely
    p = model(x).softmax(1).detach()
    empirical = ((functional.one_hot(y, 5) - p).square().sum(1) * (x.square().sum(1) + 1)).mean()
    assert sampled == pytest.approx(closed_form(model, x), rel=0.1)
    assert float(empirical) > 2 * sampled


def test_layers_sum_to_the_whole_and_draws_are_reproducible():
    model = models.mlp((1, 8), 4, width=(6, 5), generator=0)
    x = torch.randn(50, 1, 8)
    whole = fim_trace(model, x, generator=3)
    parts = fim_trace(model, x, per_layer=True, generator=3, chunk=7)
    assert list(parts.layer.values) == ["linear1", "linear2", "logits"]
    again = fim_trace(model, x, per_layer=True, generator=3, chunk=7)
    assert parts.equals(again)
    assert float(parts.sum()) == pytest.approx(float(fim_trace(model, x, generator=3, chunk=7)), rel=1e-5)
    assert whole.shape == () and whole.dtype == torch.float32


def test_the_trace_for_regression_is_the_mean_square_of_the_jacobian():
    model, x = logistic()
    found = fim_trace(model, x, kind="regression", draws=20, generator=0)
    expected = 5 * float((x.square().sum(1) + 1).mean())
    assert float(found) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", ["softmax", "regression"])
def test_both_gram_matrices_have_the_same_eigenvalues(kind):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()  # 38 parameters
    few, many = torch.randn(4, 3, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    dual = fim_spectrum(model, few, kind=kind)  # 12 of them
    primal = fim_spectrum(model, few.repeat(4, 1), kind=kind)  # the same F from 48 columns: 38 of them
    assert dual.shape == (12,) and primal.shape == (38,)
    torch.testing.assert_close(primal[:12], dual, rtol=1e-9, atol=1e-12)  # float64
    assert primal[12:].max() < 1e-12
    assert fim_spectrum(model, many, kind=kind).shape == (38,)


def test_softmax_spectrum_is_that_of_the_gauss_newton_matrix():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    data = torch.randn(10, 3, dtype=torch.float64), torch.randint(3, (10,))
    expected = top_eigenvalues(model, functional.cross_entropy, data, 59, matrix="ggn")
    found = fim_spectrum(model, data)
    torch.testing.assert_close(found, expected[:30], rtol=1e-8, atol=1e-12)
    assert float(found.sum()) == pytest.approx(float(fim_trace(model, data, draws=60, generator=0)), rel=0.1)


def test_a_watch_follows_the_trace_while_training():
    split = data_sets.digits()
    x = split.train[0][:50]
    watch = train.Watch(
        {"trace": lambda net: fim_trace(net, x, generator=0), "layers": lambda net: fim_trace(net, x, per_layer=True)},
        at=(0, 5),
    )
    net = models.mlp((1, 8, 8), 10, width=8, generator=0)
    seen = train.fit(
        net, split.train, steps=5, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), watch=watch, generator=0
    ).watched
    assert seen.trace.shape == (2,) and seen.layers.shape[0] == 2
    assert bool((seen.trace > 0).all()) and np.isfinite(seen.layers).all()


def test_one_example_is_enough_and_the_network_stays_as_it_was():
    model = models.cnn((1, 8, 8), 10, norm="batch", generator=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fim_trace(model, torch.randn(1, 1, 8, 8), generator=0) > 0
    assert fim_spectrum(model, torch.randn(1, 1, 8, 8)).shape == (10,)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_wrong_settings_are_named():
    model, x = logistic()
    with pytest.raises(InputError, match="draws"):
        fim_trace(model, x, draws=0)
    with pytest.raises(InputError, match="kind"):
        fim_trace(model, x, kind="poisson")
    with pytest.raises(InputError, match="kind"):
        fim_spectrum(model, x, kind="poisson")
    with pytest.raises(InputError, match=r"\(N, C\)"):
        fim_trace(nn.Sequential(model, nn.Unflatten(1, (5, 1))), x)
    with pytest.raises(InputError, match="eval"):
        fim_trace(models.mlp((4,), 5, norm="batch", generator=0).double(), x)
