import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from phenoscope import data, kernels, models, theory
from phenoscope.core.errors import InputError


def unit(n, d, seed=0):
    return data.sphere(n, d, dtype=torch.float64, generator=seed)


def explicit(model, x, name):
    """The Gram matrix of one parameter by reverse mode in torch.func."""
    parameters = {key: value.detach().double() for key, value in model.named_parameters()}
    jacobian = jacrev(lambda w: functional_call(model, parameters | {name: w}, (x,)).reshape(-1))(parameters[name])
    return jacobian.flatten(1) @ jacobian.flatten(1).T


@settings(max_examples=10, deadline=None)
@given(outputs=st.integers(1, 3), n=st.integers(1, 5), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_one_layers_gram_matrix_is_that_of_its_jacobian(outputs, n, dtype):
    network = models.mlp((5,), outputs, width=(7, 6), activation="tanh", generator=0).to(dtype)
    x = unit(n, 5)
    twin = models.mlp((5,), outputs, width=(7, 6), activation="tanh", generator=0).double()
    for layer, name in ((None, "linear2"), ("linear1", "linear1"), (network.logits, "logits")):
        found = kernels.last_hidden_gram(network, x.to(dtype), layer=layer)
        expected = explicit(twin, x.to(dtype).double(), f"{name}.weight")
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)  # float64 even for a network of float32
    assert network.linear1.weight.requires_grad and network.linear1.weight.dtype == dtype


def test_a_convolution_has_one_too():
    network = models.cnn((1, 8, 8), 2, width=2, generator=0).eval()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twin = models.cnn((1, 8, 8), 2, width=2, generator=0).eval().double()
    name = [name for name, p in twin.named_parameters() if p.ndim == 4][-1]
    found = kernels.last_hidden_gram(network, x, layer=name.removesuffix(".weight"))
    torch.testing.assert_close(found, explicit(twin, x, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("act", ["tanh", "relu", "erf"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_plain_limit_is_the_last_hidden_layers_term_of_the_tangent_kernel(act, depth):
    d, x = 6, unit(5, 6)
    c = 1 / float(theory.gaussian_moments(act, 1.0, power=2))
    scaled = x * math.sqrt(d / c)  # so that the first layer's covariance is x.x'
    arguments = dict(act=act, sigma_w2=c, sigma_b2=0.0)
    below = kernels.mlp_kernels(scaled, depth=depth - 1, **arguments)
    above = kernels.mlp_kernels(scaled, depth=depth, **arguments)
    slope = (above.ntk - above.nngp) / below.ntk
    found = kernels.deep_gram(x, depth=depth, act=act)
    torch.testing.assert_close(found, below.nngp * slope, rtol=1e-8, atol=1e-9)  # quadrature to 1e-10, one division


@pytest.mark.parametrize("act", ["tanh", "softplus"])
@pytest.mark.parametrize("arch", ["mlp", "resnet"])
def test_the_limit_is_the_mean_over_wide_random_networks(arch, act):
    x, depth, m, nets, c_res = unit(4, 5), 3, 1024, 16, 0.8
    phi = theory.activation(act)
    c = 1 / float(theory.gaussian_moments(act, 1.0, power=2))
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(nets):
        h, below = x, x
        for layer in range(1, depth + 1):
            w = torch.randn(m, h.shape[1], generator=generator).double()
            below, u = h, h @ w.T
            if layer == 1 or arch == "mlp":
                scale, h = math.sqrt(c / m), math.sqrt(c / m) * phi.function(u)
            else:
                scale = c_res / depth / math.sqrt(m)
                h = h + scale * phi.function(u)
        a = torch.randn(m, generator=generator).double()
        slopes = scale * a * phi.derivative(u)
        found += (below @ below.T) * (slopes @ slopes.T) / nets
    expected = kernels.deep_gram(x, depth=depth, act=act, arch=arch, c_res=c_res)
    # a single network is off by a few times 1 / sqrt(m) = 0.03, the mean by a quarter of that
    assert float((found - expected).norm() / expected.norm()) < 0.03


def test_parallel_inputs_make_it_singular_and_others_do_not():
    x = unit(6, 4)
    both = torch.cat([x, (2 * x[:1]) / (2 * x[:1]).norm()])
    for arch in ("mlp", "resnet"):
        gram = kernels.deep_gram(x, depth=3, arch=arch)
        values, singular = (
            torch.linalg.eigvalsh(gram),
            torch.linalg.eigvalsh(kernels.deep_gram(both, depth=3, arch=arch)),
        )
        assert values[0] > 1e-3 * values[-1] and abs(float(singular[0])) < 1e-9 * float(singular[-1])
    opposite = torch.linalg.eigvalsh(kernels.deep_gram(torch.cat([x, -x[:1]]), depth=3))
    assert abs(float(opposite[0])) < 1e-9  # tanh is odd


def test_a_residual_network_without_branches_has_none():
    x = unit(3, 4)
    assert kernels.deep_gram(x, depth=3, arch="resnet", c_res=0.0).abs().max() == 0
    torch.testing.assert_close(kernels.deep_gram(x, depth=1, arch="resnet"), kernels.deep_gram(x, depth=1))


def test_what_has_no_gram_matrix_is_refused():
    x = unit(3, 4)
    with pytest.raises(InputError, match="depth must be at least 1"):
        kernels.deep_gram(x, depth=0)
    with pytest.raises(InputError, match='"mlp" or "resnet"'):
        kernels.deep_gram(x, depth=2, arch="cnn")
    with pytest.raises(InputError, match="finite"):
        kernels.deep_gram(x / 0, depth=2)
    with pytest.raises(InputError, match="no hidden layer"):
        kernels.last_hidden_gram(nn.Linear(4, 1), x)
    network = models.mlp((4,), 1, generator=0)
    with pytest.raises(InputError, match="no weights of its own"):
        kernels.last_hidden_gram(network, x, layer="act1")
    with pytest.raises(InputError, match="means 3 layers"):
        kernels.last_hidden_gram(network, x, layer=nn.Linear)
    with pytest.raises(InputError, match="no layer 'head'"):
        kernels.last_hidden_gram(network, x, layer="head")
