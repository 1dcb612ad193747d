import math

import numpy as np
import pytest
import torch

from phenoscope import theory
from phenoscope.studies.benches.random_nets import orthogonal_pairs, overlapping_sequences, pass_through


def passage(act="tanh", *, sigma_w2=1.3, starts=(0.5,), q=1.0, depth=6, width=60, nets=3, sigma_b2=0.05):
    return pass_through(
        theory.activation(act), sigma_w2=sigma_w2, sigma_b2=sigma_b2, q=q, starts=list(starts), pairs=4, width=width,
        depth=depth, nets=nets, generator=0,
    )  # fmt: skip


def test_pairs_start_with_the_correlation_asked_for():
    found = passage(starts=(0.9, -0.3))
    assert found.correlation.shape == found.difference.shape == (3, 7, 8) and found.gradient.shape == (3, 6)
    expected = torch.tensor([0.9] * 4 + [-0.3] * 4).expand(3, -1)
    torch.testing.assert_close(found.correlation[:, 0], expected, rtol=0, atol=1e-6)  # float32
    torch.testing.assert_close(found.difference[:, 0], 1 - expected, rtol=1e-5, atol=1e-6)
    u, v = orthogonal_pairs(50, 7, torch.Generator().manual_seed(0))
    assert float((u * v).sum(0).abs().max()) < 1e-4 and float((v.square().mean(0) - 1).abs().max()) < 1e-5


def test_one_layer_follows_the_maps_of_mean_field_theory():
    found = passage(sigma_w2=2.5, starts=(0.5,), q=0.8, depth=1, width=800, nets=40)
    pair, own = theory.gaussian_moments("tanh", 0.8, 0.4), theory.gaussian_moments("tanh", 0.8, power=2)
    expected = float((2.5 * pair + 0.05) / (2.5 * own + 0.05))
    # 40 nets of width 800: a standard error of about 0.003
    assert float(found.correlation[:, 1].mean()) == pytest.approx(expected, abs=0.012)


def test_gradients_of_a_linear_chain_grow_by_its_weight_variance_and_are_autograds():
    found = passage("linear", sigma_w2=1.5, sigma_b2=0.0, depth=8, width=400, nets=20)
    back = found.gradient.mean(0).log().numpy()
    # forward lengths grow by 1.5 a layer and backward ones too: their product is the same everywhere
    assert abs(np.polyfit(np.arange(8), back, 1)[0]) < 0.02
    assert float(back.mean()) == pytest.approx(math.log(400 * 400 * 1.5**7), abs=0.2)


def test_gradients_are_those_of_automatic_differentiation():
    from phenoscope.studies.benches import random_nets as bench

    act = theory.activation("tanh")
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 5, generator=generator).double().requires_grad_() for _ in range(3)]
    h = torch.randn(5, 1, generator=generator).double()
    layers = [h]
    for weight in weights:
        layers.append(weight @ torch.tanh(layers[-1]))
    end = torch.randn(5, 1, generator=generator).double()
    expected = [g.square().sum() for g in torch.autograd.grad((end * layers[-1]).sum(), weights)]
    with torch.no_grad():
        found = bench._gradients(act, [layer.detach() for layer in layers], weights, end)
    torch.testing.assert_close(found, torch.stack(expected))


def test_sequences_overlap_in_as_many_tokens_as_asked_for():
    first, second = overlapping_sequences((5, 6), common=3, features=4, generator=0)
    assert first.shape == (5, 4) and second.shape == (6, 4)
    same = (first[:, None] == second).all(2)
    assert int(same.sum()) == 3 and int(same.any(0).sum()) == 3
    again = overlapping_sequences((5, 6), common=3, features=4, generator=0)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, overlapping_sequences((5, 6), common=3, features=4, generator=1)[0])
