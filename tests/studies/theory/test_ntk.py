import functools

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import ntk as module

study = module.study
WIDTHS = [32, 128, 512, 1024]
ARM = dict(model=module.mlp, dataset=module.data.digits, closed=module.limit, n=6)


def result(**changes):
    """Kernels whose variance falls exactly like 1 / width, drifts with exponents -0.5, -0.6 ..., rates as predicted."""
    widths, rng = np.array(WIDTHS, dtype=float), np.random.default_rng(0)
    deviation = np.exp(rng.normal(size=20)) / widths[:, None]
    predicted = np.geomspace(0.1, 1e-4, 8)
    found = xr.Dataset(
        {
            "ntk_deviation": (("width", "seed"), deviation),
            "ntk_gap": ("width", [0.2, 0.1, 0.04, 0.02]),
            "drift": (("trained_width", "trained_seed"), widths[:, None] ** -(0.5 + 0.1 * np.arange(3))),
            "measured_rate": (("decay_seed", "eigenvector"), np.stack([predicted, predicted])),
            "predicted_rate": (("decay_seed", "eigenvector"), np.stack([predicted, predicted])),
            "share": (("decay_seed", "eigenvector"), np.stack([predicted / 0.1, predicted / 0.1])),
        },
        {"width": WIDTHS, "trained_width": [64, *WIDTHS[1:]], "seed": range(20), "trained_seed": range(3)},
        {"steps": 300, "decay_width": 2048, "seeds": 20},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_pseudo_values_are_those_of_the_variance_with_one_seed_left_out():
    theta = np.random.default_rng(1).normal(size=(4, 5, 3, 3)) / np.array(WIDTHS)[:, None, None, None] ** 0.5
    deviation = ((theta - theta.mean(1, keepdims=True)) ** 2).mean((2, 3))
    found = observe(
        "init-variance-rate", result().isel(seed=slice(5)).assign(ntk_deviation=(("width", "seed"), deviation))
    )

    def slope(some):
        return np.polyfit(np.log(WIDTHS), np.log(some.var(1, ddof=1).mean((1, 2))), 1)[0]

    left_out = [slope(np.delete(theta, seed, axis=1)) for seed in range(5)]
    np.testing.assert_allclose(found, 5 * slope(theta) - 4 * np.array(left_out), rtol=1e-9)
    assert found.dims == ("seed",)


def test_exact_power_laws_give_their_exponents():
    np.testing.assert_allclose(observe("init-variance-rate", result()), -1, atol=1e-9)
    assert float(observe("init-mean", result())) == pytest.approx(0.02)
    drifts = result().assign_coords(trained_width=WIDTHS).drift.values
    expected = [np.polyfit(np.log([64, *WIDTHS[1:]]), np.log(drifts[:, seed]), 1)[0] for seed in range(3)]
    np.testing.assert_allclose(observe("frozen-in-training-slope", result()), expected)
    assert float(observe("frozen-in-training-size", result())) == pytest.approx(drifts[3].mean())


def test_rates_as_predicted_fit_perfectly_and_only_large_eigenvalues_count():
    measured = result().measured_rate.copy()
    measured[:, -1] = 1.0  # its eigenvalue is a thousandth of the largest
    found = result(measured_rate=measured)
    assert float(observe("eigen-decay-slope", found)) == pytest.approx(1)
    assert float(observe("eigen-decay-fit", found)) == pytest.approx(1)
    doubled = result(measured_rate=result().predicted_rate ** 2)
    assert float(observe("eigen-decay-slope", doubled)) == pytest.approx(2)
    shuffled = result(measured_rate=result().predicted_rate[:, [3, 1, 4, 0, 2, 5, 6, 7]].values * result().share ** 0)
    assert float(observe("eigen-decay-fit", shuffled)) < 0.5


def test_what_was_not_run_does_not_apply():
    small = result().isel(width=slice(2), trained_width=slice(2)).assign_attrs(decay_width=512, steps=20, seeds=5)
    for claim in study.observables:
        assert "not_applicable" in observe(claim, small).attrs, claim


def test_components_of_a_planted_decay_have_its_rate_until_they_reach_the_floor():
    steps = np.arange(200)
    assert module.rate_of(np.maximum(np.exp(-0.05 * steps), 0.01)) == pytest.approx(0.05)


def test_a_wide_network_follows_the_eigenvalues_and_moves_little_and_a_narrow_one_does_not():
    def astray(width):
        found = module.decay(Lab(0), **ARM, width=width, steps=40, seed=0)
        predicted = found.component[0] * np.exp(-found.predicted_rate * found.step)
        assert found.sizes["step"] == 41 and float(found.predicted_rate[0]) == pytest.approx(-np.log(0.9))
        return float(np.sqrt(((found.component - predicted)[-1] ** 2).sum() / (found.component[0] ** 2).sum()))

    # distances to the linear limit are of order width^-1/2
    assert astray(512) < 0.15 < astray(8)
    narrow, wide = (module.drift(Lab(0), **ARM, width=width, steps=20, seeds=2) for width in (16, 512))
    assert float(wide.drift.mean()) < 0.5 * float(narrow.drift.mean()) and (wide.loss_left < 1).all()


def test_a_linear_model_decays_exactly_as_predicted_every_component():
    init = functools.partial(module.models.init_gaussian, sigma_w2=2.0, sigma_b2=0.01)

    def linear(shape, num_classes, width, generator):
        return module.models.mlp(shape, num_classes, width=(), parametrization="ntk", init=init, generator=generator)

    kernel = functools.partial(kernels.mlp_kernels, depth=0, sigma_w2=2.0, sigma_b2=0.01)
    found = module.decay(Lab(0), **ARM | dict(model=linear, closed=kernel), width=8, steps=30, seed=0)
    np.testing.assert_allclose(found.measured_rate, found.predicted_rate, rtol=1e-3)  # float32


def test_labels_are_even_against_odd_and_the_loss_is_half_the_mean_square():
    x, y = module.examples(Lab(0), module.data.digits, 50)
    split = module.data.digits(generator=Lab(0).seed("split"))
    assert torch.equal(y[:, 0], torch.where(split.train[1][:50] % 2 == 0, 1.0, -1.0)) and len(x) == 50
    assert float(module.half_mean(torch.zeros(4, 1), torch.ones(4, 1))) == 0.5


def test_the_limit_is_the_closed_form_or_that_of_the_users_layers():
    pair = module.examples(Lab(0), module.data.digits, 4)
    ours = module.limit_of(Lab(0), module.mlp, module.limit, pair)(pair[0])
    theirs = module.limit_of(Lab(0), module.mlp, None, pair)(pair[0])
    torch.testing.assert_close(theirs.ntk, ours.ntk, rtol=1e-6, atol=1e-8)
    assert isinstance(ours, kernels.LimitKernels)
