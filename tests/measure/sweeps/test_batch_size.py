import functools

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.core.random import child_seeds
from phenoscope.measure import batch_size_sweep
from phenoscope.measure.sweeps.batch_size import beyond, choices, crossover, halving, top

SPLIT = data.digits(train=120, validation=100)
PARTS = (SPLIT.train, SPLIT.validation, SPLIT.test)
SGD = functools.partial(torch.optim.SGD, lr=9.0, momentum=0.9)
mlp = functools.partial(models.mlp, width=(16,))


def sweep(**changes):
    settings = dict(batch_sizes=(30, 120), lrs=(0.005, 0.02, 0.08), steps=12, optimizer=SGD, repeats=2, generator=0)
    return batch_size_sweep(mlp, *PARTS, **settings | changes)


def test_a_member_of_the_sweep_is_the_same_network_trained_alone():
    found = sweep()
    for batch, size in ((30, 30), (120, None)):
        for repeat, seed in enumerate(child_seeds(0, 2)):
            model = train.build(mlp, shape=(1, 8, 8), num_classes=10, generator=seed)
            train.fit(
                model, SPLIT.train, steps=12, optimizer=functools.partial(SGD, lr=0.02), batch_size=size,
                schedule=halving(12), generator=seed,
            )  # fmt: skip
            one = found.sel(batch=batch, lr=0.02, repeat=repeat)
            loss = torch.nn.functional.cross_entropy(train.outputs(model, SPLIT.train), SPLIT.train[1])
            assert float(one.training_loss) == pytest.approx(float(loss), rel=1e-4)  # sums in another order
            # a decision may turn on rounding
            assert float(one.test_accuracy) == pytest.approx(train.accuracy(model, SPLIT.test), abs=0.004)
            assert float(one.validation_accuracy) == pytest.approx(train.accuracy(model, SPLIT.validation), abs=0.011)


def test_the_full_batch_has_no_noise():
    seeds = child_seeds(0, 1)
    runs = []
    for order in (1, 2):
        model = train.build(mlp, shape=(1, 8, 8), num_classes=10, generator=seeds[0])
        train.fit(
            model, SPLIT.train, steps=12, optimizer=functools.partial(SGD, lr=0.02), batch_size=None, generator=order
        )
        runs.append(model.linear1.weight)
    assert torch.equal(*runs)
    fixed = sweep(batch_sizes=(120,), repeats=1, schedule=None, lrs=(0.02,)).training_loss
    again = sweep(batch_sizes=(120,), repeats=1, schedule=None, lrs=(0.02,)).training_loss
    assert fixed.equals(again)


def test_the_rate_is_constant_for_one_half_and_then_halved_ten_times():
    factor = [halving(200)(step) for step in range(200)]
    assert factor[:100] == [1.0] * 100
    assert factor[100:] == [0.5 ** (1 + part) for part in range(10) for _ in range(10)]


def test_updates_and_epochs_are_different_budgets():
    seen = []

    def schedule(steps):
        seen.append(steps)
        return train.cosine(steps)

    sweep(steps=None, epochs=3, batch_sizes=(50, 120), lrs=(0.02,), schedule=schedule)
    sweep(steps=5, batch_sizes=(50, 120), lrs=(0.02,), schedule=schedule)
    assert seen == [9, 3, 5, 5]  # three batches of 50, the last one smaller, hold 120


def test_at_equal_updates_the_full_batch_fits_better_and_at_equal_epochs_it_is_only_trained_less():
    common = dict(batch_sizes=(8, 120), lrs=(0.02, 0.04, 0.08), repeats=3)
    loss = {}
    for budget in ({"steps": 100, "epochs": None}, {"steps": None, "epochs": 4}):
        found = sweep(**common, **budget)
        loss[budget["steps"]] = found.training_loss.sel(lr=found.best_lr).mean("repeat")
    assert loss[100].sel(batch=120) < 0.5 * loss[100].sel(batch=8)
    assert loss[None].sel(batch=120) > 2 * loss[None].sel(batch=8)  # 4 updates against 60


def test_a_training_that_diverges_counts_as_chance():
    found = sweep(lrs=(0.02, 1e18), batch_sizes=(30,))
    lost = found.sel(lr=1e18)
    assert np.isinf(lost.training_loss).all()
    assert (lost.test_accuracy == 0.1).all() and (lost.validation_accuracy == 0.1).all()
    assert np.isfinite(found.sel(lr=0.02).training_loss).all()  # the others of the fleet are not touched
    assert float(found.best_lr[0]) != 1e18


def curve(values, lrs):
    return xr.DataArray(np.asarray(values, dtype=float), {"lr": list(lrs)}, "lr")


def test_a_grid_whose_best_rate_is_at_an_end_is_extended_there_once():
    assert beyond(curve([1, 3, 2], (0.1, 0.2, 0.4))) == []
    assert beyond(curve([1, 2, 3], (0.1, 0.2, 0.4))) == pytest.approx([0.8, 1.6])
    assert beyond(curve([3, 2, 1], (0.1, 0.2, 0.4))) == pytest.approx([0.025, 0.05])
    assert beyond(curve([3], (0.1,))) == []
    found = sweep(lrs=(1e-6, 2e-6), batch_sizes=(30, 60))
    for batch in (30, 60):
        tried = found.validation_accuracy.sel(batch=batch).dropna("lr").lr.values
        assert len(tried) == 4
    # nothing is learned at such rates, whichever is best
    assert float(found.test_accuracy.max()) < 0.4


def test_best_rates_edges_and_temperatures_are_read_off_the_curves():
    nan = np.nan
    mean = xr.DataArray(
        [[0.6, 0.8, 0.7, nan], [0.5, 0.6, 0.7, 0.9]], {"batch": [64, 16], "lr": [0.1, 0.2, 0.4, 0.8]}, ("batch", "lr")
    )
    found = choices(mean, momentum=0.9)
    assert found.batch.values.tolist() == [64, 16]
    assert found.best_lr.values.tolist() == [0.2, 0.8] and found.grid_edge.values.tolist() == [False, True]
    np.testing.assert_allclose(found.temperature, [0.2 / 6.4, 0.8 / 1.6])
    assert float(found.interpolated_lr.sel(batch=16)) == 0.8
    assert float(found.interpolated_lr.sel(batch=64)) == pytest.approx(0.2 * 2 ** (1 / 6))  # (0.7 - 0.6) / (2 * 0.3)


def test_the_top_of_a_parabola_is_found_on_an_uneven_grid():
    lrs = np.array([0.01, 0.03, 0.1, 0.2])
    values = 1 - (np.log(lrs) - np.log(0.04)) ** 2
    assert top(lrs, values, 1) == pytest.approx(0.04)
    assert top(lrs, np.ones(4), 1) == 0.03


def test_the_knee_is_where_the_planted_rate_stops_growing():
    sizes = 2.0 ** np.arange(3, 11)
    assert crossover(sizes, 0.01 * np.minimum(sizes, 128)) == pytest.approx(128, rel=0.01)
    assert crossover(sizes, 0.01 * sizes) == 1024
    assert crossover(sizes, np.full(8, 0.1)) == 8


def test_bad_settings_are_named():
    for changes, word in (
        ({"batch_sizes": (30, 121)}, "120 training examples"),
        ({"batch_sizes": (30, 30)}, "different"),
        ({"lrs": (0.2, 0.1)}, "ascend"),
        ({"lrs": ()}, "ascend"),
        ({"epochs": 2}, "either steps or epochs"),
        ({"repeats": 0}, "one repetition"),
    ):
        with pytest.raises(InputError, match=word):
            sweep(**changes)
