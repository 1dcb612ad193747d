import math

import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from phenoscope import theory
from phenoscope.core.errors import InputError


def test_the_worked_case_of_relu():
    assert theory.backprop_moment("relu", 2.0).item() == pytest.approx(1)
    assert theory.backprop_moment("relu", 2.0, readout="mean").item() == pytest.approx(1 + 1 / math.pi)
    w2, s = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64), torch.tensor([[0.3], [4.0]], dtype=torch.float64)
    found = theory.backprop_moment("relu", w2, s, readout="mean")
    torch.testing.assert_close(found, w2 / 2 + w2**2 * s / (2 * math.pi * w2 * s))  # E f'' = 1 / sqrt(2 pi var h)


@pytest.mark.parametrize("act", ["erf", "tanh", "sin", "linear"])
def test_odd_activations_have_no_correction(act):
    plain, mean = (theory.backprop_moment(act, 1.7, 0.6, readout=readout) for readout in ("random", "mean"))
    torch.testing.assert_close(plain, mean, rtol=1e-9, atol=0)


def test_erf_is_the_mean_over_a_million_samples():
    h = math.sqrt(1.7 * 0.6) * torch.randn(10**6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampled = 1.7 * theory.activation("erf").derivative(h).square().mean()
    # a standard error of half a part in a thousand
    assert theory.backprop_moment("erf", 1.7, 0.6).item() == pytest.approx(sampled.item(), rel=2e-3)


def test_a_curvature_that_exists_is_the_mean_of_the_second_derivative():
    q = 1.7 * 0.6

    def mean(f):
        return integrate.quad(lambda z: f(math.sqrt(q) * z) * norm.pdf(z), -12, 12)[0]

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    first = mean(lambda x: sigmoid(x) ** 2)
    second = mean(lambda x: sigmoid(x) * sigmoid(-x))
    found = theory.backprop_moment("softplus", 1.7, 0.6, readout="mean").item()
    assert found == pytest.approx(1.7 * first + (1.7 * second) ** 2 * 0.6, rel=1e-7)


@pytest.mark.parametrize("act", ["relu", "softplus", "erf"])
def test_gradients_behind_a_wide_layer_have_the_predicted_size(act):
    act, n, draw = theory.activation(act), 1500, torch.Generator().manual_seed(0)
    ratios = torch.zeros(2, 8)
    s = theory.gaussian_moments(act, 1.0, power=2)
    for i in range(8):
        x = act.function(torch.randn(n, generator=draw))
        w = torch.randn(n, n, generator=draw) * (2 / n) ** 0.5
        for j, v in enumerate((torch.randn(n, generator=draw), torch.ones(n))):
            gradient = w.T @ (v * act.derivative(w @ x))
            expected = theory.backprop_moment(act, 2.0, s, readout=("random", "mean")[j])
            ratios[j, i] = gradient.square().mean() / expected
    # a draw spreads by some 6 percent, the mean of eight by 2
    torch.testing.assert_close(ratios.mean(1), torch.ones(2), rtol=0, atol=0.06)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match='"random" or "mean"'):
        theory.backprop_moment("relu", 2.0, readout="sum")
    with pytest.raises(InputError, match="must be positive"):
        theory.backprop_moment("relu", 0.0)
