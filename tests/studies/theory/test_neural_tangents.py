import math

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels, train
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import neural_tangents as module

study = module.study
WIDTHS = [32, 64, 128, 256, 512, 1024, 2048]


def result(**changes):
    widths = np.array(WIDTHS, dtype=float)
    law = np.where(widths < 64, 9.0, np.where(widths > 1024, 7.0, widths**-0.5))  # what is not registered is far off
    share = np.array([0.5, 1.5])  # two nets, of mean 1
    mean, std = np.array([1.0, -1.0, 2.0, 0.0]), np.array([0.2, 0.4, 0.2, 0.05])
    members = mean + 0.1 + std * np.array([-1.2, 1.2])[:, None] / math.sqrt(2)  # std over members: 1.2 of the predicted
    found = xr.Dataset(
        {
            "kernel_error": (("architecture", "width", "net"), np.array([1.0, 2.0, 0.5])[:, None, None]
                             * law[:, None] * share),
            "outputs": (("member", "point"), members),
            "predicted_mean": ("point", mean), "predicted_std": ("point", std),
            "predicted_bayes_std": ("point", std / 2),
        },
        {"architecture": ["erf", "relu", "cnn"], "width": WIDTHS, "net": [0, 1], "member": [0, 1], "point": range(4)},
    )  # fmt: skip
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_slopes_and_errors_are_those_of_the_mean_over_nets_at_the_registered_widths():
    for name in ("erf-mlp", "relu-mlp", "cnn"):
        assert float(observe(f"mc-rate-slope-{name}", result())) == pytest.approx(-0.5)
    assert float(observe("mc-rate-error-erf-mlp", result())) == pytest.approx(1 / 32)
    assert float(observe("mc-rate-error-relu-mlp", result())) == pytest.approx(2 / 32)


def test_the_ensemble_is_measured_where_networks_are_said_to_differ():
    found = result()
    spread = float(np.std([1.0, -1.0, 2.0, 0.0]))
    assert float(observe("ensemble-mean", found)) == pytest.approx(0.1 / spread)
    assert float(observe("ensemble-std", found)) == pytest.approx(1.2)
    assert float(observe("ensemble-std-not-bayesian", found)) == pytest.approx(math.log(2.4) - math.log(1.2))
    wild = found.outputs.where(found.point != 3, 100 * found.outputs)  # where little spread is predicted: not counted
    assert float(observe("ensemble-std", result(outputs=wild))) == pytest.approx(1.2)


def test_what_was_not_run_does_not_apply():
    small = result(predicted_std=("point", np.full(4, 0.01))).sel(width=[64, 256])
    for claim in set(study.observables) - {"ensemble-mean"}:
        assert "not_applicable" in observe(claim, small).attrs, claim


@pytest.mark.parametrize("architecture", module.ARCHITECTURES)
def test_the_mean_kernel_of_random_networks_is_the_limit(architecture):
    """Monte Carlo at one width: a factor of two in any term of the kernel would show as tens of percents."""
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    limit = module.limit_kernel(architecture, x)(x).ntk
    assert torch.equal(limit, module.limit_kernel(architecture, x)(x).ntk)  # no estimate by drawing
    found = torch.zeros(4, 4)
    for seed in range(60):
        network = train.build(
            module.ARCHITECTURES[architecture], shape=(1, 6, 6), num_classes=1, width=128, generator=seed
        )
        found += kernels.empirical_ntk(network, x, outputs=0) / 60
    # a net is off by about 15 % at this width, the mean of 60 by 2 %
    assert float((found - limit).norm() / limit.norm()) < 0.06


def test_parts_of_the_ensemble_are_the_ensemble_and_training_fits_the_data():
    settings = dict(width=64, points=4, steps=60, lr=0.02)
    together = module.ensemble_part(Lab(0), members=range(3), **settings).outputs
    apart = [module.ensemble_part(Lab(0), members=[number], **settings).outputs for number in range(3)]
    np.testing.assert_allclose(together, xr.concat(apart, "member"), atol=1e-4)  # sums in another order
    start = module.ensemble_part(Lab(0), members=range(3), **settings | {"steps": 1, "lr": 1e-9}).outputs
    x, y, test = module.sine(Lab(0), 4)
    nearest = (test - x.T).abs().argmin(0)  # a place beside each training point
    errors = [float(((some.values[:, nearest] - y.T.numpy()) ** 2).mean()) for some in (start, together)]
    assert errors[1] < 0.3 * errors[0]


def test_the_prediction_starts_at_the_prior():
    found = module.predicted(Lab(0), points=3, steps=0, lr=0.02)
    np.testing.assert_allclose(found.predicted_mean, 0, atol=1e-12)
    _, _, test = module.sine(Lab(0), 3)
    prior = kernels.mlp_kernels(test, depth=2, act="erf", sigma_w2=1.5**2, sigma_b2=0.05**2).nngp.diagonal().sqrt()
    np.testing.assert_allclose(found.predicted_std, prior, rtol=1e-9)
