import math

import pytest
import torch
from torch import nn

from phenoscope.models import cnn, gru, mlp


@pytest.mark.parametrize(
    ("init", "variance", "largest"),
    [
        ("he", lambda n, m: 2 / n, math.inf),
        ("lecun", lambda n, m: 1 / n, math.inf),
        ("glorot", lambda n, m: 2 / (n + m), lambda n, m: math.sqrt(6 / (n + m))),
        ("torch", lambda n, m: 1 / (3 * n), lambda n, m: 1 / math.sqrt(n)),
    ],
)
def test_every_name_gives_its_published_law(init, variance, largest):
    weight = mlp((300,), 200, depth=0, width=1, init=init, generator=0).logits.weight
    # 60,000 values: 5 standard deviations of a sample variance are under 3%
    assert weight.var().item() == pytest.approx(variance(300, 200), rel=0.03)
    if callable(largest):
        assert weight.abs().max().item() <= largest(300, 200) * (1 + 1e-6)


def test_torch_is_the_law_of_torchs_own_layer():
    ours = mlp((40,), 30_000, depth=0, width=1, init="torch", generator=0).logits
    torch.manual_seed(0)
    theirs = nn.Linear(40, 30_000)
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        quantiles = torch.linspace(0, 1, 5)
        own, other = (torch.quantile(v.flatten()[:30_000], quantiles) for v in (a, b))
        # quantiles of 30,000 uniform values are off by 0.3% of the range a standard deviation
        torch.testing.assert_close(own, other, rtol=0, atol=0.005)


def test_a_function_has_the_last_word_and_gets_the_generator():
    seen = []

    def init(network, *, generator):
        seen.append(generator)
        nn.init.ones_(network.logits.weight)

    network = cnn((1, 8, 8), 3, init=init, generator=0)
    assert (network.logits.weight == 1).all()
    assert isinstance(seen[0], torch.Generator)
    # what the function leaves out is initialized
    assert network.conv1.weight.isfinite().all() and not network.conv1.bias.any()


def test_recurrent_weights_are_drawn_as_torch_does():
    network = gru((1, 5), 3, width=100, generator=0)
    weight = network.gru.weight_hh_l0
    assert weight.abs().max().item() <= 0.1
    assert weight.var().item() == pytest.approx(0.01 / 3, rel=0.05)  # 30,000 uniform values
