import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.core.gradients import input_gradient, jvp, per_example_gradients, per_example_jacobians


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


X = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0])


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_gradients_of_examples_are_those_of_batches_of_one(chunk):
    model = net()
    found = per_example_gradients(model, functional.cross_entropy, (X, Y), chunk=chunk)
    for i in range(7):
        expected = torch.autograd.grad(
            functional.cross_entropy(model(X[i : i + 1]), Y[i : i + 1]), list(model.parameters())
        )
        for (name, value), other in zip(found.items(), expected, strict=True):
            torch.testing.assert_close(value[i], other, rtol=1e-12, atol=1e-14, msg=name)  # float64 rounding
    whole = torch.autograd.grad(functional.cross_entropy(model(X), Y), list(model.parameters()))
    for value, other in zip(found.values(), whole, strict=True):
        torch.testing.assert_close(value.mean(0), other, rtol=1e-12, atol=1e-14)
    assert model[0].weight.grad is None


def test_batch_normalization_in_training_has_no_gradients_of_single_examples():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    with pytest.raises(InputError, match=r"call model\.eval"):
        per_example_gradients(model, functional.cross_entropy, (X, Y))
    assert per_example_gradients(model.eval(), functional.cross_entropy, (X, Y))["0.weight"].shape == (7, 2, 3)


def test_jacobians_of_a_linear_layer_are_its_inputs():
    model = nn.Linear(3, 2).double()
    found = per_example_jacobians(model, X)
    expected = torch.einsum("ab,ni->nabi", torch.eye(2, dtype=torch.float64), X)
    assert torch.equal(found["weight"], expected)
    one = per_example_jacobians(model, X, lambda out: out[0, 1:])
    assert torch.equal(one["weight"], expected[:, 1:])


def test_the_input_gradient_of_a_linear_score_is_its_weight():
    model = nn.Linear(3, 2).double()
    assert torch.equal(input_gradient(model, X, lambda out: out[:, 1]), model.weight[1].expand(7, 3))
    with torch.no_grad():  # works there too, and leaves no gradient behind
        input_gradient(model, X, lambda out: out.sum(1))
    assert model.weight.grad is None and not X.requires_grad


def test_derivatives_along_a_curve():
    at, direction = torch.tensor([0.3, -0.2]).double(), torch.tensor([1.0, 2.0]).double()
    value, first, second = jvp(torch.sin, at, direction, order=2)
    torch.testing.assert_close(value, torch.sin(at))
    torch.testing.assert_close(first, torch.cos(at) * direction)
    torch.testing.assert_close(second, -torch.sin(at) * direction**2)
    with pytest.raises(InputError, match="order must be 1 or 2"):
        jvp(torch.sin, at, direction, order=3)
