import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.landscape import ggn_product, hvp, loss_gradient


def setting(activation=nn.Tanh):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 2)).double()
    data = torch.randn(7, 3, dtype=torch.float64), torch.randint(2, (7,))
    vector = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    return model, data, vector


def explicit(model, data, loss):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    of = lambda at: loss(functional_call(model, at, (data[0],)), data[1])  # noqa: E731
    return jacrev(jacrev(of))(parameters)


@pytest.mark.parametrize("chunk", [1024, 3])
def test_hvp_is_the_product_with_the_explicit_hessian_whatever_the_chunk(chunk):
    model, data, vector = setting()
    matrix = explicit(model, data, nn.functional.cross_entropy)
    found = hvp(model, nn.functional.cross_entropy, data, vector, chunk=chunk)
    for row, part in found.items():
        expected = sum(
            torch.tensordot(matrix[row][column], v, dims=v.ndim) for column, v in vector.items()
        )  # float64: rounding of sums only
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-12)


def test_products_with_some_parameters_only_are_blocks_of_the_matrix():
    model, data, vector = setting()
    matrix = explicit(model, data, nn.functional.cross_entropy)
    found = hvp(model, nn.functional.cross_entropy, data, {"2.weight": vector["2.weight"]})
    expected = torch.tensordot(matrix["2.weight"]["2.weight"], vector["2.weight"], dims=2)
    torch.testing.assert_close(found["2.weight"], expected, rtol=1e-10, atol=1e-12)


def test_gauss_newton_is_the_hessian_where_the_network_is_linear_in_its_parameters():
    torch.manual_seed(1)
    model = nn.Linear(3, 4).double()
    data = torch.randn(9, 3, dtype=torch.float64), torch.randint(4, (9,))
    vector = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    ours = ggn_product(model, nn.functional.cross_entropy, data, vector)
    for name, part in hvp(model, nn.functional.cross_entropy, data, vector).items():
        torch.testing.assert_close(ours[name], part, rtol=1e-10, atol=1e-12)


def test_gauss_newton_is_positive_where_the_hessian_is_not():
    model, data, vector = setting()
    found = ggn_product(model, nn.functional.cross_entropy, data, vector)
    assert sum((found[name] * part).sum() for name, part in vector.items()) > 0
    jacobian = jacrev(lambda at: functional_call(model, at, (data[0],)))(dict(model.named_parameters()))
    probabilities = model(data[0]).softmax(1).detach()
    pushed = sum((jacobian[n].flatten(2) @ vector[n].flatten()).detach() for n in vector)
    curved = probabilities * pushed - probabilities * (probabilities * pushed).sum(1, keepdim=True)
    for name, part in found.items():
        expected = torch.einsum("nc,ncp->p", curved, jacobian[name].flatten(2).detach()) / len(pushed)
        torch.testing.assert_close(part.flatten(), expected, rtol=1e-10, atol=1e-12)


def test_a_mean_gradient_over_uneven_chunks_is_that_of_the_whole():
    model, data, _ = setting()
    nn.functional.cross_entropy(model(data[0]), data[1]).backward()
    for name, part in loss_gradient(model, nn.functional.cross_entropy, data, chunk=3).items():
        torch.testing.assert_close(part, model.get_parameter(name).grad, rtol=1e-10, atol=1e-12)


def test_a_network_linear_in_everything_has_no_curvature():
    model = nn.Linear(2, 1)
    data = torch.ones(3, 2), torch.zeros(3)
    found = hvp(
        model, lambda outputs, y: outputs.mean(), data, {n: torch.ones_like(p) for n, p in model.named_parameters()}
    )
    assert all(bool((part == 0).all()) for part in found.values())


def test_the_network_is_left_as_it_was_found():
    model = models.cnn((1, 8, 8), 10, generator=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    vector = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    for product in (functools.partial(hvp, vector=vector), functools.partial(ggn_product, vector=vector)):
        product(model, nn.functional.cross_entropy, data)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training


def test_a_wrong_vector_is_named():
    model, data, _ = setting()
    with pytest.raises(InputError, match=r"no trainable parameter 'nothing'"):
        hvp(model, nn.functional.cross_entropy, data, {"nothing": torch.zeros(1)})
    with pytest.raises(InputError, match=r"'0.weight' has shape \(4, 3\), the vector \(3,\)"):
        hvp(model, nn.functional.cross_entropy, data, {"0.weight": torch.zeros(3)})
