import functools

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

from phenoscope import data, kernels
from phenoscope.core.errors import InputError
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import nngp as module

study = module.study


def result(**changes):
    rng = np.random.default_rng(0)
    variance = np.linspace(1, 2, 100) * np.ones((3, 1))
    widths = np.array([4, 8, 16, 32, 64, 512])
    found = xr.Dataset(
        {
            "accuracy": (("size", "seed", "depth"), rng.uniform(0.5, 0.6, (2, 3, 2))),
            "net_accuracy": (("width", "seed"), [[0.5, 0.6, 0.7], [0.9, 0.8, 0.7], [0.7, 0.8, 0.6]]),
            "variance": (("seed", "point"), variance),
            "squared_error": (("seed", "point"), variance * [[1], [1], [-1]] + 5),
            "excess_kurtosis": ("random_width", 24.0 / widths * np.where((widths < 8) | (widths > 64), 9, 1)),
            "nngp_gap": ("random_width", 1 / widths),
            "correlation_std": ("layer", [0.2, 0.1, 0.01]),
        },
        {
            "size": [100, 500], "depth": [1, 3], "width": [16, 64, 256], "random_width": widths, "layer": [1, 10, 50],
            "seed": range(3),
        },
        {"compared": 500},
    )  # fmt: skip
    found.accuracy.loc[dict(size=500, depth=3)] = [0.9, 0.95, 1.0]
    return found.assign(changes)


def observe(claim, found):
    return study.observables[claim](found)


def test_the_process_is_compared_with_the_width_that_is_best_on_average():
    assert float(observe("gp-matches-nets-accuracy", result())) == pytest.approx(0.95)
    assert float(observe("gp-matches-nets", result())) == pytest.approx(0.95 - 0.8)


def test_rank_correlations_are_taken_by_repetition_and_averaged():
    for claim in ("variance-tracks-error-points", "variance-tracks-error-bins"):
        assert float(observe(claim, result())) == pytest.approx((1 + 1 - 1) / 3)


def test_bins_hold_equally_many_images_in_the_order_of_their_variance():
    order = np.random.default_rng(1).permutation(100)
    shuffled = result().isel(point=order)
    variance, error = module.in_bins(shuffled)
    assert variance.sizes == {"seed": 3, "bin": 20}
    np.testing.assert_allclose(variance[0], np.linspace(1, 2, 100).reshape(20, 5).mean(1))
    np.testing.assert_allclose(error[2], 5 - variance[2])


def test_the_slope_is_that_of_widths_8_to_64_and_the_collapse_that_from_depth_1_to_50():
    assert float(observe("converges-as-width", result())) == pytest.approx(-1)
    assert float(observe("kernel-depth-collapse", result())) == pytest.approx(0.05)


def test_what_was_not_run_does_not_apply():
    small = result().sel(random_width=[8, 16], layer=[1, 10]).assign_attrs(compared=100)
    for claim in study.observables:
        assert "not_applicable" in observe(claim, small).attrs, claim
    negative = result(excess_kurtosis=-result().excess_kurtosis)
    assert "not_applicable" in observe("converges-as-width", negative).attrs


def part(what, at, **settings):
    return module.one_part(Lab(0), what=what, at=at, model=module.mlp, dataset=module.digits, seed=0, settings=settings)


def test_regression_is_the_closed_form_on_the_images_that_are_left():
    found = part("regression", 100, depths=(1, 3), keep=100)
    split = data.digits(generator=Lab(0).seed("split", 0))
    x, y = (torch.cat(each) for each in zip(split.train, split.test, strict=True))
    y = functional.one_hot(y, 10).double() - 0.1
    for depth in (1, 3):
        kernel = functools.partial(module.limit, depth=depth)
        args = (kernel, x[:100], y[:100])
        mean = kernels.predict(*args, x[100:], ridge=1e-4, get="nngp", covariance=False).mean
        rate = (mean.argmax(1) == y[100:].argmax(1)).double().mean()
        assert float(found.accuracy.sel(depth=depth)) == pytest.approx(float(rate))
    np.testing.assert_allclose(found.squared_error, (mean - y[100:]).square().mean(1), rtol=1e-6)
    few = kernels.predict(*args, x[100:130], ridge=1e-4, get="nngp")
    np.testing.assert_allclose(found.variance[:30], few.std**2, rtol=1e-6)
    assert found.sizes["point"] == 1697 and 0.75 < float(found.accuracy[1]) < 0.95
    xr.testing.assert_identical(found, part("regression", 100, depths=(1, 3), keep=100))  # to the last bit
    assert "variance" not in part("regression", 50, depths=(3,), keep=100)


def test_a_trained_network_learns_and_random_ones_come_near_the_process():
    net = part("trained", 64, size=100, epochs=200, batch=50)
    assert float(net.net_accuracy) > 0.5 and float(net.net_loss) < 0.1
    narrow, wide = (part("random", width, nets=60, inputs=4) for width in (4, 64))
    assert float(wide.nngp_gap) < float(narrow.nngp_gap)
    assert float(wide.excess_kurtosis) < float(narrow.excess_kurtosis)


def test_correlations_grow_alike_with_depth():
    found = part("correlations", 0, layers=(1, 50))
    assert float(found.correlation_std[1]) < float(found.correlation_std[0])
    assert float(found.correlation_mean[1]) > float(found.correlation_mean[0])
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0], [-1.0, 1.0]])
    shallow = module.correlations(x, layers=(1,))
    k = module.limit(x, depth=1).nngp.numpy()
    pairs = [k[i, j] / np.sqrt(k[i, i] * k[j, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert shallow.correlation_std.item() == pytest.approx(np.std(pairs, ddof=1))
    assert shallow.correlation_mean.item() == pytest.approx(np.mean(pairs))


def test_the_small_run_gives_a_figure():
    small = {
        "sizes": (60, 100), "depths": (3,), "widths": (8, 16), "epochs": 2, "random_widths": (4, 8), "nets": 3,
        "layers": (1, 2), "seeds": 2,
    }  # fmt: skip
    found = module.experiment(Lab(0), **small)
    assert found.attrs["compared"] == 100 and found.accuracy.dims == ("size", "seed", "depth")
    assert len(module.figure(found).data) == 5
    with pytest.raises(InputError, match="to test on"):
        part("regression", 5000, depths=(3,), keep=5000)
