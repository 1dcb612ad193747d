import pytest
import torch
from torch import nn

from phenoscope import explain
from phenoscope.core.errors import InputError
from phenoscope.explain.score import score_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def scored(net, x, target, output="logit"):
    return score_of(net, x, target, output)(net(x), torch.arange(len(x)))


def test_every_form_of_a_target_chooses_the_number_it_names():
    net = network()
    outputs = net(X)
    classes = torch.randint(3, (8,), generator=torch.Generator().manual_seed(2))
    assert torch.equal(scored(net, X, None), outputs.max(1).values)
    assert torch.equal(scored(net, X, 2), outputs[:, 2])
    assert torch.equal(scored(net, X, classes), outputs[torch.arange(8), classes])
    assert torch.equal(scored(net, X, lambda out: out[:, 0] - out[:, 1]), outputs[:, 0] - outputs[:, 1])


def test_every_form_of_an_output_is_taken_before_the_target():
    net = network()
    torch.testing.assert_close(scored(net, X, 1, "probability"), net(X).softmax(1)[:, 1])
    torch.testing.assert_close(scored(net, X, 0, lambda out: out.exp().sum(1)), net(X).exp().sum(1))
    one = nn.Linear(6, 1)
    torch.testing.assert_close(scored(one, X, None, "probability"), one(X)[:, 0].sigmoid())
    flat = nn.Sequential(one, nn.Flatten(0))
    torch.testing.assert_close(scored(flat, X, None), one(X)[:, 0])


def test_the_decision_is_settled_at_the_inputs():
    net = network()
    score = score_of(net, X, None, "logit")
    moved = net(-3 * X)
    assert not torch.equal(moved.argmax(1), net(X).argmax(1))
    assert torch.equal(score(moved, torch.arange(8)), moved[torch.arange(8), net(X).argmax(1)])


@pytest.mark.parametrize("method", [explain.saliency, explain.gradient_x_input, explain.integrated_gradients])
@pytest.mark.parametrize(
    ("x", "settings", "said"),
    [
        (X, dict(target=3), "class 3"),
        (X, dict(target=-1), "class -1"),
        (X, dict(target=torch.zeros(7, dtype=torch.long)), "one class for each of the 8"),
        (X, dict(target=torch.zeros(8)), "float32"),
        (X, dict(target=lambda out: out), "one number each"),
        (X, dict(output="softmax"), "softmax"),
        (X, dict(output=lambda out: out[:, :, None]), "must be"),
        (X.long(), {}, "real numbers"),
        (X.to(torch.complex64), {}, "real numbers"),
        (X[:0], {}, "at least one"),
        (torch.full_like(X, torch.nan), {}, "NaN"),
        (X, dict(chunk=0), "chunk"),
    ],
)
def test_bad_input_is_named(method, x, settings, said):
    with pytest.raises(InputError, match=said):
        method(network(), x, **settings)
