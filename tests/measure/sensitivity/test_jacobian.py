import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope import measure, models
from phenoscope.core.errors import InputError


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 4)
    ).double()  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 8))
def test_a_linear_layer_has_its_weight_as_jacobian(n, inputs, outputs, chunk):
    layer = nn.Linear(inputs, outputs).double()
    found = measure.jacobian(layer, draw(n, inputs), chunk=chunk)
    assert torch.equal(found, layer.weight.detach().expand(n, -1, -1))


def test_it_is_torchs_own_jacobian_for_a_network_with_inner_shapes():
    model, x = convolutional(), draw(3, 1, 6, 6)
    found = measure.jacobian(model, x)
    for i in range(3):
        expected = torch.autograd.functional.jacobian(model.eval(), x[i : i + 1]).reshape(4, 36)
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-14)  # float64 rounding


def test_linear_scores_through_a_softmax_have_the_closed_form():
    layer, x = nn.Linear(5, 3).double(), draw(4, 5)
    p = layer(x).softmax(1).detach()
    expected = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ layer.weight.detach()
    torch.testing.assert_close(measure.jacobian(layer, x, output="probability"), expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(measure.jacobian_norm(layer, x), expected.flatten(1).norm(dim=1), rtol=1e-6, atol=0)


def test_larger_scores_scale_the_derivative_of_the_scores_alone():
    layer, x = nn.Linear(5, 3).double(), draw(4, 5)
    tenfold = nn.Linear(5, 3).double()
    with torch.no_grad():
        tenfold.weight.copy_(10 * layer.weight)
        tenfold.bias.copy_(10 * layer.bias)
    ratio = measure.jacobian_norm(tenfold, x, output="logit") / measure.jacobian_norm(layer, x, output="logit")
    torch.testing.assert_close(ratio, torch.full_like(ratio, 10))
    other = measure.jacobian_norm(tenfold, x) / measure.jacobian_norm(layer, x)
    assert float((other - 10).abs().min()) > 0.1


def test_between_two_layers_it_is_the_product_of_what_lies_between():
    model = models.mlp((5,), 3, width=(6, 7), activation="tanh", init="lecun", generator=0).double()
    x = draw(4, 5)
    h = model[:2](x).detach()  # what linear1 puts out
    slope = torch.diag_embed(1 - torch.tanh(h) ** 2)
    expected = model.linear2.weight.detach() @ slope
    torch.testing.assert_close(measure.jacobian(model, x, start="linear1", end="linear2"), expected)
    torch.testing.assert_close(
        measure.jacobian(model, x, end="linear1"), model.linear1.weight.detach().expand(4, -1, -1)
    )
    whole = measure.jacobian(model, x)
    parts = measure.jacobian(model, x, start=model.linear2) @ expected @ measure.jacobian(model, x, end="linear1")
    torch.testing.assert_close(parts, whole)
    with pytest.raises(InputError, match="does not depend on the input"):
        measure.jacobian(model, x, start="linear2", end="linear1")


@pytest.mark.parametrize("depth", [1, 10])
def test_a_chain_of_orthogonal_layers_has_equal_singular_values(depth):
    layers = [nn.Linear(8, 8, bias=False) for _ in range(depth)]
    for i, layer in enumerate(layers):
        nn.init.orthogonal_(layer.weight, gain=0.9, generator=torch.Generator().manual_seed(i))
    found = measure.jacobian_singular_values(nn.Sequential(*layers), draw(2, 8).float())
    torch.testing.assert_close(found, torch.full_like(found, 0.9**depth), rtol=1e-5, atol=0)  # float32 weights
    assert found.shape == (2, 8) and found.dtype == torch.float64


def test_random_projections_estimate_the_norm():
    model, x = convolutional(), draw(3, 1, 6, 6)
    exact = measure.jacobian_norm(model, x, output="logit")
    estimate = measure.jacobian_norm(model, x, output="logit", n=2000, generator=0)
    torch.testing.assert_close(estimate, exact, rtol=0.03, atol=0)  # the square's relative spread is about 1 / sqrt(n)
    assert torch.equal(estimate, measure.jacobian_norm(model, x, output="logit", n=2000, generator=0))


def test_the_model_is_left_as_it_was_found():
    model, x = convolutional().train(), draw(3, 1, 6, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        measure.jacobian(model, x, start="2")
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not x.requires_grad


def test_bad_input_is_refused():
    model, x = convolutional(), draw(3, 1, 6, 6)
    with pytest.raises(InputError, match="no layer 'nothing'"):
        measure.jacobian(model, x, start="nothing")
    with pytest.raises(InputError, match="leave out end"):
        measure.jacobian(model, x, output="probability", end="1")
    with pytest.raises(InputError, match="at least one example"):
        measure.jacobian(model, x[:0])
    with pytest.raises(InputError, match="n must be at least 1"):
        measure.jacobian_norm(model, x, n=0)
    with pytest.raises(InputError, match="output must be"):
        measure.jacobian_norm(model, x, output="softmax")
