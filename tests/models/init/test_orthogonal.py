import itertools

import jax
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.measure import jacobian_singular_values
from phenoscope.models import NTKLinear, init_orthogonal


@pytest.mark.parametrize(("outputs", "inputs"), [(30, 30), (20, 50), (50, 20), (1, 7), (7, 1)])
def test_rows_or_columns_are_orthonormal_whichever_are_fewer(outputs, inputs):
    layer = nn.Linear(inputs, outputs)
    init_orthogonal(layer, gain=1.5, generator=0)
    w = layer.weight.detach()
    gram = w @ w.T if outputs <= inputs else w.T @ w
    # drawn in float64 and rounded to float32
    torch.testing.assert_close(gram, 2.25 * torch.eye(len(gram)), atol=1e-5, rtol=0)
    assert not layer.bias.any()


def test_a_deep_linear_network_is_an_isometry():
    network = models.deep_linear((20,), 20, width=20, depth=30)
    init_orthogonal(network, generator=0)
    values = jacobian_singular_values(network, torch.randn(3, 20))
    torch.testing.assert_close(values, torch.ones(3, 20).double(), atol=1e-5, rtol=0)
    # the negative control: Gaussian weights of the same variance are none
    models.init_gaussian(network, sigma_w2=1.0, generator=0)
    values = jacobian_singular_values(network, torch.randn(1, 20))[0]
    assert values[0] / values[-1] > 1e3


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_keeps_the_size_of_every_signal(groups):
    layer = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular", groups=groups, bias=False)
    init_orthogonal(layer, gain=2.0, generator=0)
    x = torch.randn(4, 6, 5, 5)
    sizes = layer(x).flatten(1).norm(dim=1)
    torch.testing.assert_close(sizes, 2 * x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    wide = nn.Conv1d(3, 8, 5, padding=2, bias=False)
    init_orthogonal(wide, generator=0)
    x = torch.randn(2, 3, 9)
    torch.testing.assert_close(wide(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    # the trap: an orthogonal matrix of the whole kernel makes some signals larger than others
    torch.manual_seed(0)
    nn.init.orthogonal_(layer.weight)
    x = torch.cat([torch.randn(4, 6, 5, 5), torch.ones(1, 6, 5, 5)])
    ratio = layer(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert ratio.max() / ratio.min() > 1.05


def test_the_kernel_has_the_form_of_jaxs_delta_orthogonal():
    layer = nn.Conv2d(4, 6, 3)
    init_orthogonal(layer, generator=0)
    ours = layer.weight.detach()
    theirs = np.asarray(jax.nn.initializers.delta_orthogonal()(jax.random.key(0), (3, 3, 4, 6))).transpose(3, 2, 0, 1)
    assert ((ours != 0).numpy() == (theirs != 0)).all()
    for kernel in (ours, torch.from_numpy(theirs.copy())):
        centre = kernel[:, :, 1, 1]
        torch.testing.assert_close(centre.T @ centre, torch.eye(4), atol=1e-5, rtol=0)


def test_matrices_are_uniform_as_scipys_are():
    ours = []
    layer = nn.Linear(3, 3, bias=False)
    for seed in range(400):
        init_orthogonal(layer, generator=seed)
        ours.append(layer.weight[0, 0].item())
    theirs = stats.ortho_group.rvs(3, size=400, random_state=0)[:, 0, 0]
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01
    assert stats.kstest(ours, stats.uniform(-1, 2).cdf).pvalue > 0.01  # a coordinate on the sphere, by Archimedes


def test_variances_in_place_of_a_gain():
    one, other = nn.Linear(200, 200), nn.Linear(200, 200)
    init_orthogonal(one, sigma_w2=4.0, sigma_b2=0.25, generator=3)
    init_orthogonal(other, gain=2.0, generator=3)
    assert torch.equal(one.weight, other.weight)
    # 200 draws: relative standard deviation of the variance 0.1, 4 of them
    assert one.bias.var().item() == pytest.approx(0.25, rel=0.4) and not other.bias.any()


def test_the_ntk_parametrization_scales_by_itself():
    layer, plain = NTKLinear(20, 20), nn.Linear(20, 20)
    for each in (layer, plain):
        init_orthogonal(each, gain=1.5, generator=0)
    x = torch.randn(3, 20)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_stay_and_the_seed_decides(dtype):
    one, same, other = (nn.Linear(9, 9).to(dtype) for _ in range(3))
    for layer, seed in zip((one, same, other), (1, 1, 2), strict=True):
        init_orthogonal(layer, generator=seed)
    assert one.weight.dtype == dtype and one.weight.requires_grad and one.weight.is_leaf
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)


def test_a_factory_takes_it_and_norms_stay():
    network = models.mlp((8,), 3, width=(8, 8), norm="batch", init=init_orthogonal, generator=0)
    w = network.linear2.weight
    torch.testing.assert_close(w @ w.T, torch.eye(8), atol=1e-5, rtol=0)
    assert (network.norm1.weight == 1).all()


def test_what_cannot_be_orthogonal_is_refused_before_anything_changes():
    for bad, words in ((nn.Conv2d(3, 8, 4), "middle"), (nn.Conv2d(8, 3, 3), "output channels")):
        network = nn.Sequential(nn.Linear(4, 4), bad)
        before = network[0].weight.detach().clone()
        with pytest.raises(InputError, match=words):
            init_orthogonal(network)
        assert torch.equal(network[0].weight, before)
    with pytest.raises(InputError, match="no linear"):
        init_orthogonal(nn.ReLU())
    with pytest.raises(InputError, match="not both"):
        init_orthogonal(nn.Linear(2, 2), gain=1.0, sigma_w2=1.0)
    for name, bad_value in itertools.product(("gain", "sigma_w2", "sigma_b2"), (-1.0, float("nan"))):
        with pytest.raises(InputError, match="at least 0"):
            init_orthogonal(nn.Linear(2, 2), **{name: bad_value})
