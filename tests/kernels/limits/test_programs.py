import math

import pytest
import torch
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def simulated(norm, x, nets, width, depth=2):
    """Second moments of last hidden activations of `models.mlp`, mean over networks; batch statistics in training."""
    moments = []
    for seed in range(nets):
        init = lambda net, generator: models.init_gaussian(net, sigma_w2=2.0, sigma_b2=0.0, generator=generator)  # noqa: E731
        net = models.mlp(x.shape[1:], None, width=width, depth=depth, norm=norm, init=init, generator=seed).train()
        with torch.no_grad():
            h = net(x.float())
        moments.append(h @ h.T / width)
    return torch.stack(moments).mean(0).double()


def test_layer_normalization_of_relu_is_the_kernel_of_normalized_inputs():
    x = normal(5, 7)
    found = kernels.netsor(kernels.layernorm_program(x, depth=3, sigma_w2=0.7, eps=0.0))
    unit = x / x.square().mean(1, keepdim=True).sqrt() / 2**0.5  # He's variance keeps a length of one from then on
    torch.testing.assert_close(found, kernels.mlp_kernels(unit, depth=3, sigma_w2=2.0).nngp / 2)


def test_wide_networks_with_torchs_normalization_have_these_kernels():
    x = normal(4, 6)
    layer = kernels.netsor(kernels.layernorm_program(x, depth=2, sigma_w2=2.0))
    batch = kernels.netsor(kernels.batchnorm_program(x, depth=2, sigma_w2=2.0))
    assert float((layer - batch).norm() / batch.norm()) > 0.2
    for norm, expected in (("layer", layer), ("batch", batch)):
        found = simulated(norm, x, nets=30, width=1024)
        # one net's moments spread by some 5 percent at this width, the mean of 30 by one
        assert float((found - expected).norm() / expected.norm()) < 0.02, norm


def test_biases_of_layer_normalized_networks_are_shared_by_all_inputs():
    x = normal(2, 3)
    found = kernels.netsor(kernels.layernorm_program(x, depth=2, sigma_w2=1e-9, sigma_b2=1.0, eps=0.0))
    torch.testing.assert_close(found, torch.full((2, 2), 0.5, dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_batch_of_two_becomes_opposite_signs():
    found = kernels.netsor(kernels.batchnorm_program(normal(2, 5), act="linear", eps=0.0))
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


def test_batch_normalized_outputs_have_no_mean_and_unit_variance_over_the_batch():
    found = kernels.netsor(kernels.batchnorm_program(normal(6, 4), act="linear", depth=3, eps=0.0))
    torch.testing.assert_close(found.sum(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(found.trace()) == pytest.approx(6)


def test_batch_normalization_of_uncorrelated_inputs_is_symmetric_in_them():
    found = kernels.netsor(kernels.batchnorm_program(torch.eye(5, dtype=torch.float64), act="linear", eps=0.0))
    expected = torch.full((5, 5), -0.25, dtype=torch.float64).fill_diagonal_(1.0)  # rows sum to zero, and are alike
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)  # Sobol points of four dimensions


def test_the_first_state_of_a_gated_network_by_hand():
    x = normal(1, 4)[:, None].expand(2, 1, 4).clone()
    x[1] = normal(1, 4, seed=1)
    q = 0.9 * (x[:, 0] @ x[:, 0].T) / 4 + 0.1
    erf = 2 / math.pi * torch.asin(2 * q / torch.sqrt((1 + 2 * q.diagonal())[:, None] * (1 + 2 * q.diagonal())))
    found = kernels.gru_nngp(x, sigma_u2=0.9, sigma_b2=0.1, sigma_v2=2.0)
    torch.testing.assert_close(
        found, 2 * (1 + erf) / 4 * erf, rtol=0, atol=5e-4
    )  # gate and candidate independent; four dimensions


def test_wide_gated_networks_have_this_kernel():
    pair, width, nets = [normal(3, 5), normal(4, 5, seed=1)], 256, 150
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(3, nets, width, width, generator=draw) * (1.2 / width) ** 0.5
    u = torch.randn(3, nets, width, 5, generator=draw) * (1.5 / 5) ** 0.5
    b = torch.randn(3, nets, width, generator=draw) * 0.1**0.5
    states = []
    for x in pair:
        h = torch.zeros(nets, width)
        for token in x.float():
            into = u @ token + b
            z, r = (0.5 + 0.5 * torch.erf(into[i] + (w[i] @ h[..., None])[..., 0]) for i in (0, 1))
            h = (1 - z) * h + z * torch.erf(into[2] + (w[2] @ (r * h)[..., None])[..., 0])
            states.append(h)
    found = torch.stack(states, 1)
    found = (found @ found.mT / width).mean(0).double()
    expected = kernels.gru_nngp(pair, sigma_w2=1.2, sigma_u2=1.5, sigma_b2=0.1)
    # one net's moments spread by some 15 percent at this width, the mean of 150 by a little over one
    assert float((found - expected).norm() / expected.norm()) < 0.03
    finer = kernels.gru_nngp(pair, sigma_w2=1.2, sigma_u2=1.5, sigma_b2=0.1, generator=1)
    assert float((finer - expected).abs().max()) < 3e-3  # up to 18 dimensions
    assert float(torch.linalg.eigvalsh(expected)[0]) > 0


@pytest.mark.parametrize("causal", [True, False])
def test_wide_attention_has_this_kernel(causal):
    parts, width, nets = [normal(3, 5), normal(4, 5, seed=1)], 512, 40
    parts[1][1] = parts[0][2]
    draw = torch.Generator().manual_seed(0)

    def weights(inputs):
        return torch.randn(nets, inputs, width, generator=draw) * (1.5 / inputs) ** 0.5

    states = [part.float().expand(nets, -1, -1) for part in parts]
    for inputs in (5, width):
        u, w1, w2 = weights(inputs), weights(width), weights(width)
        b1, b2 = torch.randn(2, nets, 1, width, generator=draw) * 0.2**0.5
        for i, x in enumerate(states):
            k = x @ u
            mask = torch.ones(k.shape[1], k.shape[1]).tril().bool() if causal else None
            h = k + functional.scaled_dot_product_attention(k, k, k, attn_mask=mask, scale=1 / width)
            h = functional.layer_norm(h, (width,))
            states[i] = functional.layer_norm(h + torch.relu(h @ w1 + b1) @ w2 + b2, (width,))
    found = torch.cat(states, 1)
    found = (found @ found.mT / width).mean(0).double()
    program = kernels.attention_program(parts, depth=2, sigma_w2=1.5, sigma_b2=0.2, causal=causal)
    expected = kernels.netsor(program)
    # one net's moments spread by some 5 percent at this width, the mean of 40 by one
    assert float((found - expected).norm() / expected.norm()) < 0.02
    other = kernels.netsor(kernels.attention_program(parts, depth=2, sigma_w2=1.5, sigma_b2=0.2, causal=not causal))
    assert float((expected - other).norm() / expected.norm()) > 0.03


def test_attention_without_a_mask_does_not_see_the_order():
    x, order = normal(4, 5), torch.tensor([2, 0, 3, 1])
    found, moved = (kernels.netsor(kernels.attention_program(part, causal=False)) for part in (x, x[order]))
    torch.testing.assert_close(moved, found[order][:, order])
    torch.testing.assert_close(found.diagonal(), torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=0)


def test_bad_input_is_refused():
    for make in (kernels.layernorm_program, kernels.batchnorm_program):
        with pytest.raises(InputError, match="depth must be at least 1"):
            make(normal(3, 2), depth=0)
        with pytest.raises(InputError, match="inputs"):
            make(normal(3))
    with pytest.raises(InputError, match="depth must be at least 1"):
        kernels.attention_program(normal(3, 2), depth=0)
    with pytest.raises(InputError, match="at least two inputs"):
        kernels.batchnorm_program(normal(1, 2))
