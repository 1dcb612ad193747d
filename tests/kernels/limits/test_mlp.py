import math
from functools import partial

import pytest
import torch

from phenoscope import kernels, models
from phenoscope.core.errors import InputError


def inputs(n=4, d=6):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(seed, width, activation="relu", depth=2):
    init = partial(models.init_gaussian, sigma_w2=2.0, sigma_b2=0.1)
    return models.mlp(
        (6,), 1, width=width, depth=depth, activation=activation, parametrization="ntk", init=init, generator=seed
    )


@pytest.mark.parametrize("act", ["relu", "tanh"])
def test_the_mean_over_wide_networks_is_the_limit(act):
    x, width, draws = inputs(), 512, 60
    nets = [network(seed, width, act).double() for seed in range(draws)]
    found = kernels.mlp_kernels(x, depth=2, act=act, sigma_w2=2.0, sigma_b2=0.1)
    ntk = torch.stack([kernels.empirical_ntk(net, x, outputs=0) for net in nets]).mean(0)
    # one net's kernels spread by some 14 percent at this width, the mean of 60 by 1.8; beside it stands 1/width
    assert float((ntk - found.ntk).norm() / found.ntk.norm()) < 0.04
    nngp = 2.0 * torch.stack([kernels.empirical_nngp(net, x) for net in nets]).mean(0) + 0.1
    assert float((nngp - found.nngp).norm() / found.nngp.norm()) < 0.04


def test_relu_follows_the_arc_cosine_formulas_written_out():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    found = kernels.mlp_kernels(x, y, depth=1, act="relu", sigma_w2=2.0, sigma_b2=0.0)
    t = math.acos(0.6)
    sigma = 2 * (math.sin(t) + (math.pi - t) * 0.6) / (2 * math.pi)
    theta = 0.6 * 2 * (math.pi - t) / (2 * math.pi) + sigma
    assert found.nngp.item() == pytest.approx(sigma, rel=1e-7)  # inputs are float32
    assert found.ntk.item() == pytest.approx(theta, rel=1e-7)


def test_without_hidden_layers_both_kernels_are_the_inputs_own():
    x = inputs()
    found = kernels.mlp_kernels(x, depth=0, sigma_w2=3.0, sigma_b2=0.5)
    torch.testing.assert_close(found.nngp, 3.0 * x @ x.T / 6 + 0.5)
    torch.testing.assert_close(found.ntk, found.nngp)


def test_the_diagonal_does_not_depend_on_what_else_is_asked():
    x = inputs()
    whole = kernels.mlp_kernels(x, depth=3, act="tanh", sigma_w2=1.5, sigma_b2=0.1)
    alone = kernels.mlp_kernels(x[:1], x[1:2], depth=3, act="tanh", sigma_w2=1.5, sigma_b2=0.1)
    assert whole.ntk[0, 1].item() == pytest.approx(alone.ntk.item(), rel=1e-12)
    values = torch.linalg.eigvalsh(whole.ntk)
    assert values[0] > 0 and torch.allclose(whole.ntk, whole.ntk.T, rtol=1e-9)


def test_the_last_bias_may_be_left_out():
    x = inputs()
    with_bias, without = (kernels.mlp_kernels(x, depth=1, sigma_b2=0.3, last_bias=on).nngp for on in (True, False))
    torch.testing.assert_close(with_bias - without, torch.full((4, 4), 0.3, dtype=torch.float64))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="depth must not be negative"):
        kernels.mlp_kernels(inputs(), depth=-1)
    with pytest.raises(InputError, match="6 and 3 features"):
        kernels.mlp_kernels(inputs(), inputs(d=3), depth=1)
