import functools

import numpy as np
import pytest
import torch

from phenoscope import data as data_sets
from phenoscope import landscape, models, prune, train
from phenoscope.core.errors import InputError

SPLIT = data_sets.digits()
MLP = functools.partial(models.mlp, width=(16, 16))
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def analysis(**settings):
    common = {
        "ks": (0, 150), "steps": 160, "optimizer": SGD, "test": SPLIT.test, "points": 9, "generator": 0,
    }  # fmt: skip
    return landscape.instability(MLP, SPLIT.train, **common | settings)


def test_copies_that_part_at_the_start_are_apart_and_late_ones_are_not():
    signals = data_sets.mnist1d(train=600, test=200)  # harder than the digits, whose copies are hardly ever apart
    found = landscape.instability(
        functools.partial(models.mlp, width=32), signals.train, ks=(0, 195), steps=200, optimizer=SGD, points=9,
        test=signals.test, pairs=2, generator=0,
    )  # fmt: skip
    assert dict(found.error_barrier.sizes) == {"k": 2, "pair": 2, "part": 2}
    early, late = (found.sel(k=k, part="train") for k in (0, 195))
    assert early.error_barrier.mean() > 0.03 > 0.02 > late.error_barrier.mean()
    assert bool((early.distance > late.distance).all()) and bool((early.cosine < late.cosine).all())
    assert found.stable_k.sel(part="train") == 195
    ends = (found.error.isel(alpha=0) + found.error.isel(alpha=-1)) / 2
    np.testing.assert_allclose(found.error_barrier, found.error.max("alpha") - ends, atol=1e-12)


def test_the_trap_of_one_data_order_for_both_copies_gives_exactly_nothing(monkeypatch):
    module = landscape.instability.__globals__
    monkeypatch.setitem(module, "child_seeds", lambda generator, n: [7] * n)
    found = analysis()
    assert bool((found.error_barrier == 0).all()) and bool((found.distance == 0).all())
    assert bool((found.disagreement == 0).all())


def test_copies_always_differ():
    found = analysis(ks=(159,))
    assert bool((found.distance > 0).all())


def test_a_copy_goes_on_where_the_trunk_stands():
    """One order throughout: the copies are then the network that was never split, momentum and schedule included."""
    schedule = train.step_decay(120, at=(0.5,), factor=0.1)
    one = MLP((1, 8, 8), 10, generator=0)
    updater = SGD(one.parameters())
    # full batches: no order, so that trunk and copies see the same
    common = {"optimizer": updater, "batch_size": 1400, "generator": 0}
    train.fit(one, SPLIT.train, steps=120, schedule=schedule, **common)
    found = landscape.instability(
        lambda shape, num_classes: MLP(shape, num_classes, generator=0), SPLIT.train, ks=(40, 80), steps=120,
        optimizer=SGD, schedule=schedule, batch_size=1400, points=2, generator=0, test=SPLIT.test,
    )  # fmt: skip
    expected = 1 - train.accuracy(one, SPLIT.test)
    # sums over a batch are taken in another order: a decision of 397 may differ
    assert abs(found.error.sel(part="test") - expected).max() <= 1 / 397 + 1e-9
    forgetful = landscape.instability(
        lambda shape, num_classes: MLP(shape, num_classes, generator=0), SPLIT.train, ks=(40,), steps=60,
        optimizer=SGD, batch_size=1400, points=2, generator=0, keep_momentum=False,
    )  # fmt: skip
    kept = landscape.instability(
        lambda shape, num_classes: MLP(shape, num_classes, generator=0), SPLIT.train, ks=(40,), steps=60,
        optimizer=SGD, batch_size=1400, points=2, generator=0,
    )  # fmt: skip
    assert abs(float(forgetful.loss.mean() - kept.loss.mean())) > 1e-4


def test_the_trunk_is_one_training_whatever_the_steps():
    """With the last k at the end but one, the copies are hardly more than the trunk."""
    alone, among = (analysis(ks=ks, steps=60, schedule=train.step_decay(60)) for ks in ((59,), (0, 10, 40, 59)))
    # another order from step 59 on moves the weights by a hundredth of a rate of 0.1
    np.testing.assert_allclose(alone.loss.sel(k=59), among.loss.sel(k=59), rtol=1e-2)
    other = analysis(ks=(59,), steps=60, schedule=train.step_decay(60), generator=1)
    assert abs(other.loss / alone.loss - 1).max() > 0.05


def test_masks_hold_from_the_split_on_and_in_between():
    seen = []

    def masks(model):
        seen.append(train.accuracy(model, SPLIT.train))
        return prune.one_shot(model, density=0.2)

    found = analysis(masks=masks, ks=(0, 100))
    assert len(seen) == 1 and seen[0] > 0.95  # made of the dense network, trained to the end
    none = prune.Masks({name: torch.zeros_like(mask) for name, mask in prune.Masks.ones(MLP((1, 8, 8), 10)).items()})
    dead = analysis(masks=none, ks=(0,))
    assert bool((dead.error.sel(part="train") > 0.85).all())  # without a weight that is left all classes look alike
    assert bool((found.error.isel(alpha=0) < 0.5).all())


def test_the_same_seed_gives_the_same_bits():
    assert analysis(ks=(0,)).equals(analysis(ks=(0,)))
    assert not analysis(ks=(0,)).equals(analysis(ks=(0,), generator=1))


def test_batch_norm_shows_both_kinds_of_statistics():
    found = landscape.instability(
        functools.partial(models.mlp, width=8, norm="batch"), SPLIT.train, ks=(0,), steps=30, optimizer=SGD, points=3,
        generator=0,
    )  # fmt: skip
    assert found.part.values.tolist() == ["train"]
    assert found.error_interpolated.sizes == found.error.sizes
    assert not found.error_interpolated.equals(found.error)


def test_what_is_stable_stays_stable():
    import xarray as xr

    stable = landscape.instability.__globals__["_stable"]
    k = {"k": [0, 10, 20, 30]}
    assert stable(xr.DataArray([0.3, 0.01, 0.05, 0.0], k, "k"), 0.02) == 30
    assert stable(xr.DataArray([0.3, 0.01, 0.01, 0.0], k, "k"), 0.02) == 10
    assert stable(xr.DataArray([0.0, 0.0, 0.0, 0.0], k, "k"), 0.02) == 0
    assert np.isnan(stable(xr.DataArray([0.0, 0.0, 0.0, 0.3], k, "k"), 0.02))


def test_wrong_settings_are_named():
    for settings, words in (({"ks": ()}, "ks are"), ({"ks": (160,)}, "from 0 to 159"), ({"pairs": 0}, "pairs")):
        with pytest.raises(InputError, match=words):
            analysis(**settings)
