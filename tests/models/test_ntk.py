from functools import partial

import pytest
import torch
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.models import NTKConv2d, NTKLinear, init_gaussian, mlp


def test_a_layer_is_its_definition():
    layer = NTKLinear(5, 3, sigma_w2=2.25, sigma_b2=0.04).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    expected = 1.5 / 5**0.5 * x @ layer.weight.T + 0.2 * layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)  # rounding of float64


def test_at_the_start_outputs_have_the_variance_of_the_standard_parametrization():
    x = torch.ones(1, 50)
    for parametrization in ("ntk", "standard"):
        init = partial(init_gaussian, sigma_w2=1.5, sigma_b2=0.5)
        network = mlp((50,), 20_000, depth=0, width=1, init=init, parametrization=parametrization, generator=0)
        # sigma_w2 * 1 + sigma_b2; a sample variance of 20,000 values is off by 1% a standard deviation
        assert network(x).var().item() == pytest.approx(2.0, rel=0.05)


def test_the_tangent_kernel_does_not_grow_with_the_width():
    def diagonal(parametrization, width):
        network = mlp((10,), 1, width=(width,), parametrization=parametrization, generator=0)
        network(torch.ones(1, 10)).sum().backward()
        return sum(p.grad.square().sum().item() for p in network.parameters())

    # limit of the ReLU kernel at |x|^2 = 10, sigma_w2 = 2: 2 + 2 = 4; width 4096 leaves a few percent of noise
    assert diagonal("ntk", 4096) == pytest.approx(4.0, rel=0.15)
    assert diagonal("standard", 4096) > 100 * diagonal("ntk", 4096)


@pytest.mark.parametrize(("mode", "torchs"), [("zeros", "constant"), ("circular", "circular")])
def test_a_convolution_is_its_definition(mode, torchs):
    layer = NTKConv2d(2, 3, 5, sigma_w2=2.25, sigma_b2=0.04, padding_mode=mode).double()
    x = torch.randn(4, 2, 6, 7, dtype=torch.float64)
    padded = functional.pad(x, (2, 2, 2, 2), mode=torchs)
    expected = functional.conv2d(padded, 1.5 / 50**0.5 * layer.weight, 0.2 * layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)  # rounding of float64
    assert layer(x).shape == (4, 3, 6, 7)


def test_a_convolution_draws_the_same_from_the_same_seed_and_refuses_an_even_filter():
    one, two = NTKConv2d(2, 3), NTKConv2d(2, 3)
    for layer in (one, two):
        layer.reset_parameters(torch.Generator().manual_seed(0))
    assert torch.equal(one.weight, two.weight)
    with pytest.raises(InputError, match="odd"):
        NTKConv2d(2, 3, 4)
