import functools
import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope.lab.map import Lab
from phenoscope.studies.theory import ntk_finite_depth_width as module

study = module.study
SHAPES = [(16, 1), (16, 2), (16, 4), (32, 4), (32, 8), (64, 4), (64, 16)]


def result(**changes):
    """ln R exactly 1.1 times the predicted, variation and change by power laws."""
    width, depth = (np.array(part) for part in zip(*SHAPES, strict=True))
    beta = depth / width
    found = xr.Dataset(
        {
            "predicted": ("shape", np.exp(3 * beta)),
            "ratio": ("shape", np.exp(3.3 * beta)),
            "variation": ("shape", 4 * beta),
            "change": ("shape", -0.1 * depth**2 / width),
        },
        {name: ("shape", of) for name, of in {"width": width, "depth": depth, "beta": beta}.items()},
    ).assign_coords(name=("shape", [f"{w}x{d}" for w, d in SHAPES]))
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_observables_compare_the_networks_that_the_claims_name():
    found = result()
    assert float(observe("predicted-ratio", found)) == pytest.approx(0.1)
    assert float(observe("ratio-is-function-of-beta", found)) == pytest.approx(0, abs=1e-9)
    assert float(observe("not-deterministic-fixed-beta", found)) == pytest.approx(1)
    assert float(observe("not-deterministic-size", found)) == pytest.approx(1)
    assert float(observe("not-deterministic-fixed-depth", found)) == pytest.approx(0.25)
    assert float(observe("kernel-moves-fixed-depth", found)) == pytest.approx(-1)
    assert float(observe("kernel-moves-fixed-beta", found)) == pytest.approx(2)  # d^2 / n at d = n / 4


def test_a_network_beyond_a_quarter_does_not_count_as_predicted():
    wrong = result()
    wrong = xr.concat([wrong, wrong.isel(shape=[0]).assign_coords(beta=("shape", [0.3])) * 9], "shape")
    assert float(observe("predicted-ratio", wrong)) == pytest.approx(0.1)


def test_what_was_not_run_does_not_apply():
    for claim in study.observables:
        assert "not_applicable" in observe(claim, result().isel(shape=slice(5))).attrs, claim


class Plain(nn.Module):
    """The network as torch would have it, from the same weights."""

    def __init__(self, weights, last):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(weight.clone()) for weight in weights])
        self.last = nn.Parameter(last.clone())

    def forward(self, x):
        for weight in self.weights:
            x = torch.relu(math.sqrt(2 / weight.shape[1]) * weight @ x)
        return self.last @ x / math.sqrt(len(self.last))


def by_autograd(network, x):
    slopes = torch.autograd.grad(network(x), list(network.parameters()))
    return float(sum(slope.square().sum() for slope in slopes))


@pytest.mark.parametrize("shape", [[], [6], [6, 3, 5]])
def test_the_kernel_and_that_after_a_step_are_those_of_autograd(shape):
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    weights = [draw(4, out, into) for into, out in zip([7, *shape], shape, strict=False)]
    last, x, y = draw(4, [7, *shape][-1]), draw(4, 7), draw(4)
    before, after = module.step(weights, last, x, y, 0.05)
    for i in range(4):
        network = Plain([weight[i] for weight in weights], last[i])
        assert float(before[i]) == pytest.approx(by_autograd(network, x[i]), rel=1e-12)
        (0.5 * (network(x[i]) - y[i]) ** 2).backward()
        torch.optim.SGD(network.parameters(), lr=0.05).step()
        assert float(after[i]) == pytest.approx(by_autograd(network, x[i]), rel=1e-12)


def test_the_mean_is_the_number_of_layers_and_the_ratio_as_predicted():
    found = module.one_shape(Lab(0), shape=[16, 16], nets=4000, rate=0.1, inputs=8)
    assert float(found["mean"]) == pytest.approx(3, rel=0.05)  # E K = d + 1; 4,000 networks are sure of it to 1 %
    assert float(found.ratio) == pytest.approx(float(found.predicted), rel=0.1)
    assert float(found.ratio_low) < float(found.ratio) < float(found.ratio_high)
    assert float(found.variation) == pytest.approx(math.sqrt(float(found.ratio) - 1), rel=1e-6)


def test_a_model_without_hidden_layers_has_one_kernel_and_keeps_it():
    found = module.one_shape(Lab(0), shape=[], nets=50, rate=0.1, inputs=8)
    assert float(found["mean"]) == pytest.approx(1) and float(found.ratio) == pytest.approx(1)
    assert float(found.change) == pytest.approx(0, abs=1e-12)


def test_too_few_networks_underestimate_where_depth_exceeds_the_width():
    # beta = 4: what makes the second moment are networks that hardly ever come up
    few = module.one_shape(Lab(0), shape=[4] * 16, nets=500, rate=0.0, inputs=4)
    assert float(few.ratio) < 0.1 * float(few.predicted)
    assert float(few.change) == pytest.approx(0, abs=1e-12)  # a step of no length
