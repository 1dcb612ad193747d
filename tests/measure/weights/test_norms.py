import itertools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import measure, models
from phenoscope.core.errors import InputError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def small():
    return models.mlp((3,), 2, width=(3,), generator=0)


def test_norms_of_linear_layers_are_those_of_numpy():
    net = models.mlp((3,), 4, width=(6, 5), generator=0)
    found = measure.norms(net, X)
    assert found.layer.values.tolist() == ["linear1", "linear2", "logits"]
    for name in found.layer.values:
        matrix = net.get_submodule(name).weight.detach().numpy()
        one = found.sel(layer=name)
        np.testing.assert_allclose(one.spectral, np.linalg.norm(matrix, 2), rtol=1e-5)
        np.testing.assert_allclose(one.frobenius, np.linalg.norm(matrix), rtol=1e-5)
        np.testing.assert_allclose(one.two_one, sum(np.linalg.norm(row) for row in matrix), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
        (nn.Conv2d(2, 4, 3, stride=2, groups=2, bias=False), (2, 7, 7)),
        (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (2, 9)),
        (nn.ConvTranspose1d(3, 2, 4, stride=2), (3, 5)),
    ],
)
def test_the_norm_of_a_convolution_is_that_of_the_matrix_it_is(layer, shape):
    layer.double()
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
    columns = layer(torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)) - zero
    expected = torch.linalg.matrix_norm(columns.flatten(1).detach(), 2)
    found = measure.norms(nn.Sequential(layer), x)
    np.testing.assert_allclose(found.spectral[0], expected, rtol=1e-3)  # power iteration: two values may lie close
    kernels = measure.norms(nn.Sequential(layer), x, spectral="matrix")
    np.testing.assert_allclose(kernels.spectral[0], np.linalg.norm(layer.weight.detach().flatten(1).numpy(), 2))
    assert not np.isclose(float(kernels.spectral[0]), float(found.spectral[0]), rtol=1e-2)


def test_a_convolution_of_one_place_is_its_matrix():
    layer = nn.Conv2d(4, 3, 1)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    both = [measure.norms(layer, x, spectral=kind).spectral.item() for kind in ("operator", "matrix")]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-4)  # float32 power iteration


def test_distances_are_norms_of_the_difference_and_zero_without_training():
    net, other = small(), models.mlp((3,), 2, width=(3,), generator=1)
    start = other.state_dict()
    found = measure.distances(net, start, X)
    difference = (net.linear1.weight - start["linear1.weight"]).detach().numpy()
    np.testing.assert_allclose(found.spectral[0], np.linalg.norm(difference, 2), rtol=1e-5)
    assert (measure.distances(net, net.state_dict(), X).to_array() == 0).all()


def test_the_path_norm_is_the_sum_over_all_paths():
    """A 3-3-2 network has 3 * 3 * 2 paths from its inputs, 3 * 2 from the hidden biases and 2 from the last."""
    net = small()
    with torch.no_grad():
        net.linear1.bias.normal_(generator=torch.Generator().manual_seed(2))
        net.logits.bias.normal_(generator=torch.Generator().manual_seed(3))
    first, second = net.linear1.weight.double() ** 2, net.logits.weight.double() ** 2
    total = sum(first[h, i] * second[o, h] for i, h, o in itertools.product(range(3), range(3), range(2)))
    total += sum(net.linear1.bias.double()[h] ** 2 * second[o, h] for h, o in itertools.product(range(3), range(2)))
    total += (net.logits.bias.double() ** 2).sum()
    torch.testing.assert_close(measure.path_norm(net, X).double(), total.detach(), rtol=1e-5, atol=0)


def test_the_path_norm_is_that_of_absolute_values_of_a_net_whose_weights_are_square_roots():
    net = models.cnn((1, 6, 6), 3, width=(4, 4), generator=0)
    x = torch.zeros(2, 1, 6, 6)
    rooted = models.cnn((1, 6, 6), 3, width=(4, 4), generator=0)
    with torch.no_grad():
        for parameter in rooted.parameters():
            parameter.copy_(parameter.abs().sqrt())
        for parameter in net.parameters():
            parameter.abs_()
    expected = net(torch.ones(1, 1, 6, 6)).sum().detach()
    torch.testing.assert_close(measure.path_norm(rooted, x), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("knobs", [{"activation": "tanh"}, {"norm": "layer"}, {"norm": "batch"}])
def test_the_path_norm_is_not_defined_where_something_is_not_homogeneous(knobs):
    net = models.mlp((3,), 2, width=(8,), generator=0, **knobs)
    if knobs.get("norm") == "batch":
        net.norm1.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    assert measure.path_norm(net, X).isnan()


def test_the_network_is_left_as_it_was():
    net = models.cnn((1, 6, 6), 3, width=(4,), norm="batch", generator=0).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure.norms(net, torch.zeros(1, 1, 6, 6))
    measure.path_norm(net, torch.zeros(1, 1, 6, 6))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_weights_that_are_not_finite_have_no_norm():
    net = small()
    with torch.no_grad():
        net.linear1.weight[0, 0] = torch.inf
    found = measure.norms(net, X)
    assert found.spectral.isnull().values.tolist() == [True, False]


def test_what_cannot_be_measured_is_named():
    with pytest.raises(InputError, match="no weights"):
        measure.norms(nn.Sequential(nn.BatchNorm1d(3)), X)
    with pytest.raises(InputError, match="logits"):
        measure.distances(small(), {"linear1.weight": torch.zeros(3, 3), "linear1.bias": torch.zeros(3)}, X)
    with pytest.raises(InputError, match="init_state"):
        measure.distances(small(), models.mlp((3,), 2, width=(4,), generator=0).state_dict(), X)
    with pytest.raises(InputError, match="spectral"):
        measure.norms(small(), X, spectral="fft")
