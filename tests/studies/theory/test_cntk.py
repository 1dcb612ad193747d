import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data, kernels
from phenoscope.core.errors import InputError
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import cntk as module

study = module.study
CHANNELS = [32, 64, 128, 256]


def result(**changes):
    accuracy = np.zeros((2, 3, 2))
    accuracy[0] = [[0.9, 0.8], [0.3, 0.1], [0.25, 0.2]]
    errors = np.stack([[2.0 * count**-0.5] * 2 for count in CHANNELS])[:, None] * np.array([1.0, 0.5])[:, None]
    found = xr.Dataset(
        {
            "accuracy": (("rolled", "kernel", "split"), accuracy),
            "finite_error": (("channels", "head", "net"), errors),
        },
        {"rolled": [True, False], "kernel": ["gap", "flatten", "dense"], "head": list(module.HEADS),
         "channels": CHANNELS},
    )  # fmt: skip
    return found.assign(changes)


def observe(claim, found):
    return study.observables[claim](found)


def test_gains_are_paired_over_splits_of_rolled_images():
    np.testing.assert_allclose(observe("gap-wins-under-shift", result()), [0.6, 0.7])
    np.testing.assert_allclose(observe("conv-beats-fc", result()), [0.65, 0.6])
    assert observe("conv-beats-fc", result()).dims == ("split",)


def test_slopes_and_errors_are_those_of_the_mean_over_networks():
    for head, error in (("gap", 2 / 16), ("flatten", 1 / 16)):
        assert float(observe(f"finite-cnn-converges-slope-{head}", result())) == pytest.approx(-0.5)
        assert float(observe(f"finite-cnn-converges-error-{head}", result())) == pytest.approx(error)


def test_claims_on_what_was_not_run_do_not_apply():
    few = result().isel(channels=[0, 1])
    for claim in ("finite-cnn-converges-slope-gap", "finite-cnn-converges-error-flatten"):
        assert "not_applicable" in str(observe(claim, few).attrs) or observe(claim, few).isnull().all()
    paper = {"large_accuracy": 0.774, **module.PAPER}
    assert float(observe("cifar-77", result(**paper))) == pytest.approx(77.4)
    for other in (result(), result(**paper | {"large_train": 10_000})):
        assert observe("cifar-77", other).attrs == observe("cifar-77", result()).attrs


def test_the_limit_of_the_finite_networks_is_the_exact_kernel():
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    for head in module.HEADS:
        exact = kernels.cntk(x, depth=2, pooling=head, padding="circular")
        nets = [module.finite_network((2, 4, 4), 64, 2, head, seed).double() for seed in range(60)]
        mean = torch.stack([kernels.empirical_ntk(net, x, outputs="trace") for net in nets]).mean(0)
        # a network of 64 channels is off by some 20 percent, the mean of 60 by 3; a wrong scale by at least 100
        assert (mean - exact).norm() < 0.1 * exact.norm()


def test_the_pool_and_its_halves_have_equally_many_of_every_class():
    lab = Lab(0)
    x, y = module.pool(lab, data.digits, images=60, crop=6)
    assert x.shape == (60, 1, 6, 6) and (y.bincount() == 6).all()
    training, test = module.halves(lab, y, train=20, split=0)
    assert (y[training].bincount() == 2).all() and sorted(torch.cat([training, test]).tolist()) == list(range(60))
    with pytest.raises(InputError, match="not there"):
        module.pool(lab, data.digits, images=65, crop=6)


def test_regression_on_a_kernel_that_knows_the_classes_is_right():
    y = torch.arange(3).repeat(6)
    gram = (y[:, None] == y).double() + 0.1 * torch.eye(18)
    assert module.accuracy(gram, y, torch.arange(9), torch.arange(9, 18)) == 1.0


def test_at_scale_blocks_make_the_matrices_of_the_whole():
    def few(*, generator=None):
        return data.digits(train=40, validation=1730, generator=0)

    split = few()
    lab = Lab(0)
    found = module.at_scale(lab, dataset=few, images=30, depth=2, block=13)
    (x, y), (test, truth) = split.train, split.test
    whole = kernels.cntk(torch.cat([x[:30], test]), depth=2)
    y_all = torch.cat([y[:30], truth])
    assert float(found.large_accuracy) == module.accuracy(whole, y_all, torch.arange(30), torch.arange(30, len(whole)))
    assert int(found.large_train) == 30 and int(found.large_pixels) == 64
