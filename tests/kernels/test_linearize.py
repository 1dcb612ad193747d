from functools import partial

import pytest
import torch
from scipy.linalg import expm
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError


def net(seed=0, outputs=2):
    return models.mlp((5,), outputs, width=(8, 7), activation="tanh", init="lecun", generator=seed).double()


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def half_sum(f, y):
    return 0.5 * ((f - y) ** 2).sum()


def displaced(linear, directions, size=1.0):
    with torch.no_grad():
        for offset, direction in zip(linear.offsets, directions, strict=True):
            offset.copy_(size * direction)
    return linear


def descend(model, x, y, *, lr, steps, loss=half_sum):
    """Plain descent; the outputs before every step and at the end."""
    seen = []
    parameters = [p for p in model.parameters() if p.requires_grad]
    for step in range(steps + 1):
        out = model(x)
        seen.append(out.detach())
        if step < steps:
            for p, g in zip(parameters, torch.autograd.grad(loss(out, y), parameters), strict=True):
                p.data -= lr * g
    return torch.stack(seen)


def test_at_the_start_outputs_and_gradients_are_the_networks():
    model, x, y = net(), draw(6, 5), draw(6, 2, seed=1)
    linear = kernels.linearize(model)
    assert torch.equal(linear(x), model(x))
    ours = torch.autograd.grad(half_sum(linear(x), y), list(linear.offsets))
    theirs = torch.autograd.grad(half_sum(model(x), y), list(model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)  # other order of the same products


def test_displaced_outputs_are_those_of_an_explicit_jacobian():
    model, x = net(), draw(6, 5)
    directions = [draw(*p.shape, seed=i) for i, p in enumerate(model.parameters())]
    jacobian = torch.autograd.functional.jacobian(
        lambda *values: functional_call(model, dict(zip(dict(model.named_parameters()), values, strict=True)), (x,)),
        tuple(p.detach() for p in model.parameters()),
    )
    expected = model(x) + sum(
        torch.einsum("ncp,p->nc", part.flatten(2), direction.flatten())
        for part, direction in zip(jacobian, directions, strict=True)
    )
    found = displaced(kernels.linearize(model), directions)(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_it_is_affine_in_the_offsets_wherever_they_are():
    """What expands anew at every step would pass at the start, but not here."""
    model, x = net(), draw(6, 5)
    linear, directions = kernels.linearize(model), [draw(*p.shape, seed=9) for p in model.parameters()]
    at = [displaced(linear, directions, size)(x).detach() for size in (0.0, 1.0, 2.0, 4.0)]
    torch.testing.assert_close(at[2] - at[0], 2 * (at[1] - at[0]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(at[3] - at[0], 4 * (at[1] - at[0]), rtol=1e-10, atol=1e-12)
    moved = copy_of(model, directions)
    assert float((moved(x) - at[1]).detach().abs().max()) > 0.1  # the network itself is far from affine


def copy_of(model, directions):
    values = {n: p + d for (n, p), d in zip(model.named_parameters(), directions, strict=True)}
    return lambda x: functional_call(model, values, (x,))


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.01, momentum=0.9), torch.optim.Adam])
def test_a_linear_network_and_its_linearization_train_alike(optimizer):
    torch.manual_seed(0)
    model, x, y = nn.Linear(5, 3).double(), draw(20, 5), draw(20, 3, seed=1)
    linear = kernels.linearize(model)
    pairs = [(model, optimizer(model.parameters())), (linear, optimizer(linear.parameters()))]
    for _ in range(50):
        for each, rule in pairs:
            rule.zero_grad()
            functional.cross_entropy(each(x), y.argmax(1)).backward()
            rule.step()
    torch.testing.assert_close(linear(x), model(x), rtol=1e-6, atol=1e-6)


def test_discrete_descent_of_the_linearization_has_a_closed_form():
    model, x, y, test = net(), draw(12, 5), draw(12, 2, seed=1), draw(5, 5, seed=2)
    lr = 0.5 * 2 / float(torch.linalg.eigvalsh(matrix(model, x))[-1])
    linear = kernels.linearize(model)
    both = torch.cat([x, test])
    seen = descend(Joint(linear, x), both, y, lr=lr, steps=60, loss=lambda f, y: half_sum(f[:12], y))
    found = kernels.linear_prediction(model, x, y, both, range(61), lr=lr, flow=False)
    torch.testing.assert_close(found, seen, rtol=1e-9, atol=1e-9)  # sums of 60 steps in float64


class Joint(nn.Module):
    """Trains on the first rows and shows all."""

    def __init__(self, model, x):
        super().__init__()
        self.model, self.n = model, len(x)

    def forward(self, both):
        return self.model(both)


def matrix(model, x):
    kernel = kernels.empirical_ntk(model, x)
    n, _, c, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(n * c, n * c)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("half_sum", half_sum), ("half_mean", lambda f, y: half_sum(f, y) / len(f)), ("mse", functional.mse_loss)],
)
def test_a_rate_belongs_to_its_loss(name, loss):
    model, x, y = net(), draw(6, 5), draw(6, 2, seed=1)
    seen = descend(kernels.linearize(model), x, y, lr=0.01, steps=5, loss=loss)[-1]
    found = kernels.linear_prediction(model, x, y, x, 5, lr=0.01, loss=name, flow=False)
    torch.testing.assert_close(found, seen, rtol=1e-10, atol=1e-10)


def test_gradient_flow_is_the_matrix_exponential():
    model, x, y, test = net(), draw(7, 5), draw(7, 2, seed=1), draw(3, 5, seed=2)
    gram = matrix(model, x)
    cross = kernels.empirical_ntk(model, test, x).permute(0, 2, 1, 3).reshape(6, 14)
    left = torch.as_tensor(expm(-0.3 * 2.0 * gram.numpy()))
    rest = (model(x) - y).flatten().detach()
    on_train = y + (left @ rest).view(7, 2)
    on_test = model(test).detach() - (cross @ torch.linalg.solve(gram, rest - left @ rest)).view(3, 2)
    found = kernels.linear_prediction(model, x, y, torch.cat([x, test]), 2.0, lr=0.3)
    torch.testing.assert_close(found, torch.cat([on_train, on_test]), rtol=1e-7, atol=1e-7)  # solving loses digits


def test_many_small_steps_are_gradient_flow():
    model, x, y = net(), draw(6, 5), draw(6, 2, seed=1)
    steps = kernels.linear_prediction(model, x, y, x, 100_000, lr=1e-5, flow=False)
    flow = kernels.linear_prediction(model, x, y, x, 1.0, lr=1.0)
    torch.testing.assert_close(steps, flow, rtol=1e-3, atol=1e-3)


def test_repeated_examples_make_no_division_by_zero():
    model, x, y = net(), draw(3, 5), draw(3, 2, seed=1)
    found = kernels.linear_prediction(model, x.repeat(2, 1), y.repeat(2, 1), x, [0, 1e6], lr=1.0)
    torch.testing.assert_close(found[0], model(x))
    torch.testing.assert_close(found[1], y, rtol=1e-5, atol=1e-5)  # interpolated after a long time


def test_above_the_critical_rate_the_closed_form_diverges_and_below_it_does_not():
    model, x, y = net(), draw(6, 5), draw(6, 2, seed=1)
    critical = 2 / float(torch.linalg.eigvalsh(matrix(model, x))[-1])
    start = float(half_sum(model(x), y).detach())
    for factor, low, high in ((0.99, 0.0, 1.0), (1.3, 10.0, float("inf"))):
        after = kernels.linear_prediction(model, x, y, x, 100, lr=factor * critical, flow=False)
        assert low * start <= float(half_sum(after, y)) <= high * start


def test_the_network_is_copied_and_left_as_it_was():
    model, x = net().train(), draw(4, 5)
    linear = kernels.linearize(model)
    before = linear(x).detach()
    with torch.no_grad():
        model.linear1.weight.add_(1)
    assert torch.equal(linear(x), before) and model.training and all(p.requires_grad for p in model.parameters())
    assert not linear.train().network.training
    assert len(list(linear.parameters())) == 12 and sum(p.requires_grad for p in linear.parameters()) == 6


def test_bad_input_is_refused():
    model, x = net(), draw(4, 5)
    with pytest.raises(InputError, match="targets have shape"):
        kernels.linear_prediction(model, x, draw(4, 3), x, 1, lr=1.0)
    with pytest.raises(InputError, match="loss must be one of"):
        kernels.linear_prediction(model, x, draw(4, 2), x, 1, lr=1.0, loss="sum")
    with pytest.raises(InputError, match="whole numbers"):
        kernels.linear_prediction(model, x, draw(4, 2), x, 1.5, lr=1.0, flow=False)
