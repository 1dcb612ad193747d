import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch.func import functional_call, jacrev

from phenoscope import data, kernels, theory
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import gd_global_minima_deep as module

study = module.study
DEPTHS, WIDTHS, STEPS = [2, 4, 8], [64, 128, 256, 512], [0, 40, 80]
ARM = dict(n=10, d=8, c_res=0.5, steps=120, every=40, train_last=True, seed=0)


def result(**changes):
    sizes = (2, 3, 4, 2, 3, 2)
    dims = ("arch", "depth", "width", "seed", "step", "gram")
    drift = np.zeros(sizes)
    widths, seeds, depths = np.array(WIDTHS, dtype=float), np.array([0.0, 1.0]), np.array(DEPTHS, dtype=float)
    drift[0, ..., 2, 1] = (depths**1.5)[:, None, None] * widths[:, None] ** (-0.5 - 0.1 * seeds)
    drift[1, ..., 2, 1] = (depths**0.5)[:, None, None] * widths[:, None] ** (-0.4 - 0.1 * seeds)
    found = xr.Dataset(
        {
            "relative_drift": (dims, drift),
            "within": (dims, np.ones(sizes, dtype=bool)),
            "population_error": (("arch", "depth"), np.array([[0.01, 0.02, 0.05], [0.03, 0.2, 0.1]])),
        },
        {
            "arch": ["mlp", "resnet"], "depth": DEPTHS, "width": WIDTHS, "seed": [0, 1], "step": STEPS,
            "gram": ["layer", "all"],
        },
        {"population_width": 512, "population_nets": 16},
    )  # fmt: skip
    return found.assign(changes)


def observe(claim, found):
    return study.observables[claim](found)


def test_shares_are_of_steps_after_the_start_of_the_widest_networks_by_the_last_layers_matrix():
    found = result()
    found.within.loc[dict(step=0)] = False
    found.within.loc[dict(width=256)] = False
    found.within.loc[dict(gram="all")] = False
    assert float(observe("linear-convergence-mlp", found)) == 1
    found.within.loc[dict(arch="mlp", width=512, depth=8, seed=1, step=80)] = False
    assert float(observe("linear-convergence-mlp", found)) == pytest.approx(11 / 12)
    assert float(observe("linear-convergence-resnet", found)) == 1


def test_slopes_and_ratios_are_of_the_whole_matrix_at_the_end_seed_by_seed():
    np.testing.assert_allclose(observe("gram-stable-with-width-mlp", result()), [-0.5, -0.6])
    np.testing.assert_allclose(observe("gram-stable-with-width-resnet", result()), [-0.4, -0.5])
    ratio = observe("resnet-depth-robust", result())
    np.testing.assert_allclose(ratio, [4.0, 4.0])
    assert ratio.dims == ("seed",)


def test_population_errors_are_the_largest_over_depths():
    assert float(observe("population-gram-mlp", result())) == pytest.approx(0.05)
    assert float(observe("population-gram-resnet", result())) == pytest.approx(0.2)


def test_what_was_not_run_does_not_apply():
    small = result().sel(width=[64, 128], depth=[2, 4]).assign_attrs(population_width=128)
    for claim in study.observables:
        assert "not_applicable" in observe(claim, small).attrs, claim


@pytest.mark.parametrize("arch", module.ARCHES)
def test_the_networks_are_those_of_the_paper_and_their_matrix_is_its_formula(arch):
    x, depth, m = data.sphere(5, 6, dtype=torch.float64, generator=0), 3, 32
    network = module.Deep(6, width=m, depth=depth, arch=arch, c_res=0.5, generator=0)
    weights = [layer.weight.detach() for layer in network.hidden]
    c = 1 / float(theory.gaussian_moments("tanh", 1.0, power=2))
    h = math.sqrt(c / m) * torch.tanh(x @ weights[0].T)
    for w in weights[1:]:
        below, step = h, torch.tanh(h @ w.T)
        h = math.sqrt(c / m) * step if arch == "mlp" else h + 0.5 / (depth * math.sqrt(m)) * step
    a = network.out.weight.detach()
    torch.testing.assert_close(network(x).detach(), h @ a.T, rtol=1e-12, atol=1e-12)
    # (x_i.x_j) (c / m) sum_r a_r^2 phi'(w_r.x_i) phi'(w_r.x_j) with the scale of the last layer
    scale = c / m if arch == "mlp" else 0.25 / (depth**2 * m)
    slopes = a * (1 - torch.tanh(below @ weights[-1].T) ** 2)
    formula = scale * (below @ below.T) * (slopes @ slopes.T)
    found = kernels.last_hidden_gram(network, x)
    torch.testing.assert_close(found, formula, rtol=1e-10, atol=1e-12)
    jacobian = jacrev(lambda w: functional_call(network, {f"hidden.{depth - 1}.weight": w}, (x,))[:, 0])(weights[-1])
    torch.testing.assert_close(found, jacobian.flatten(1) @ jacobian.flatten(1).T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("arch", module.ARCHES)
def test_a_wide_network_converges_and_drifts_less_than_a_narrow_one(arch):
    wide, narrow = (module.one_network(Lab(0), arch=arch, depth=3, width=width, **ARM) for width in (512, 16))
    assert bool(wide.within.sel(gram="layer").all()) and float(wide.residual[-1]) < 0.5 * float(wide.residual[0])
    drifts = [float(module.final_drift(one)) for one in (wide, narrow)]
    assert 0 < 2 * drifts[0] < drifts[1]  # 5.7 in theory


def test_the_last_layer_may_be_fixed():
    both = [
        module.one_network(Lab(0), arch="mlp", depth=2, width=32, **ARM | {"train_last": last})
        for last in (True, False)
    ]
    # the last layer's own matrix is missing from the sum
    assert float(both[0].largest.sel(gram="all", step=0)) > float(both[1].largest.sel(gram="all", step=0))


@pytest.mark.parametrize("arch", module.ARCHES)
def test_wider_networks_are_nearer_to_the_limit(arch):
    arm = dict(arch=arch, depth=3, nets=4, n=10, d=8, c_res=0.5)
    wide, narrow = (float(module.population(Lab(0), width=width, **arm).population_error) for width in (512, 16))
    assert wide < 0.1 and wide < 0.5 * narrow
