import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import train
from phenoscope.studies.empirical import sgd_noise as module

OBSERVABLES = module.study.observables


def arm(sizes, best, prefix="", seeds=3, interpolated=None):
    lrs = [0.05, 0.1, 0.2, 0.4]
    noise = np.array([-0.01, 0.0, 0.01])[:seeds]
    size = np.array(sizes)
    values = 0.9 - size[:, None, None] / 10000 - 0.3 * (np.array(lrs)[:, None] != np.array(best)[:, None, None]) + noise
    loss = 1.0 / size[:, None, None] * np.ones_like(values)
    dims = ("batch", "lr", "repeat")
    scores = {"validation_accuracy": values, "test_accuracy": values - 0.1, "training_loss": loss}
    found = xr.Dataset(
        {name: (dims, value) for name, value in scores.items()}, {"batch": size, "lr": lrs, "repeat": range(seeds)}
    )
    found["best_lr"] = "batch", list(best)
    found["interpolated_lr"] = "batch", list(interpolated or best)
    found = found.assign(samples=1000)
    return module.together([found.sel(batch=[one]) for one in sizes], prefix)


def result(sizes=(1000, 16, 64), epoch=(16, 32, 64, 128), large=None):
    best = {1000: 0.4, 16: 0.05, 64: 0.2}
    parts = [arm(sizes, [best[size] for size in sizes])]
    rates = [0.01 * (size / 16) ** 0.8 for size in epoch]
    parts.append(arm(epoch, [0.1] * len(epoch), "epoch_", interpolated=rates))
    if large:
        parts.append(arm(large, [0.1] * len(large), "large_"))
    return xr.merge(parts, compat="no_conflicts", join="outer")


def test_batches_are_compared_at_their_own_best_rates():
    found = OBSERVABLES["small-beats-full-batch"](result())
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, (1000 - 16) / 10000)
    np.testing.assert_allclose(OBSERVABLES["despite-lower-train-loss"](result()), np.log10(16 / 1000))
    # the trap: at one rate for all batch sizes another comparison comes out
    shared = result().test_accuracy.sel(lr=0.05)
    assert (shared.sel(batch=16) - shared.sel(batch=1000) > 0.3).all()


def test_the_slope_is_that_of_the_interpolated_rates():
    found = OBSERVABLES["lr-scales-with-batch"](result())
    assert found.dims == () and float(found) == pytest.approx(0.8)


def test_the_gap_at_scale_is_read_off_the_large_arm():
    found = result(large=(64, 128, 256, 16384))
    gap = OBSERVABLES["resnet-gap-sign"](found)
    assert gap.dims == ("seed",)
    np.testing.assert_allclose(gap, (16384 - (64 + 128 + 256) / 3) / 10000)
    assert OBSERVABLES["resnet-gap-size"](found).dims == ()
    assert float(OBSERVABLES["resnet-gap-size"](found)) == pytest.approx(float(gap.mean()))


def test_what_a_run_lacks_does_not_apply():
    few = result(sizes=(1000, 64), epoch=(16, 64))
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](few).attrs
    assert "not_applicable" in OBSERVABLES["resnet-gap-size"](result(large=(64, 128))).attrs


def test_batch_sizes_with_different_rates_lie_side_by_side():
    rows = [arm([16], [0.05]), arm([64], [0.2]).assign_coords(lr=[0.1, 0.2, 0.4, 0.8])]
    both = module.together([row.rename(seed="repeat").drop_vars("crossover") for row in rows], "")
    assert both.lr.values.tolist() == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert int(both.test_accuracy.isnull().sum()) == 2 * 3


def test_the_wide_residual_network_has_the_published_size_and_shape():
    # WRN-16-4 has 2.75 million parameters (Zagoruyko and Komodakis, 2016, table 4: 2.8M)
    network = train.build(module.wide_resnet, shape=(3, 32, 32), num_classes=10, generator=0)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(2.75e6, rel=0.01)
    features = network[: list(dict(network.named_children())).index("pool")](torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 256, 8, 8)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
