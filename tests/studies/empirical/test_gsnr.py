import functools

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data, models
from phenoscope.core.errors import InputError
from phenoscope.lab.seeds import seed_for
from phenoscope.studies.empirical import gsnr as module

OBSERVABLES = module.study.observables
STEPS = [0, 20, 40, 60, 80]
SMALL = dict(
    model=functools.partial(models.mlp, width=(8,)), dataset=functools.partial(data.mnist1d, train=240, test=100),
    start=0, networks=2, examples=100, steps=20, every=5, starts=1,
)  # fmt: skip


class Lab:
    device = torch.device("cpu")

    def seed(self, *path):
        return seed_for(0, *path)


def planted(noises=(0.0, 0.5, 1.0)):
    """Realized ratios are what is predicted until 60 % are learned, and nonsense later; two starts."""
    shape = (len(noises), 2, 5)
    predicted = np.linspace(0.1, 0.9, np.prod(shape)).reshape(shape)
    gsnr = np.ones(shape) * 10.0 ** -np.array(noises)[:, None, None]  # falls tenfold with the noise
    gsnr[:, 1] *= [1, 2, 1, 1, 1]
    learned = np.broadcast_to([0.0, 0.3, 0.6, 0.7, 0.9], shape)
    found = {
        "predicted": predicted,
        "gsnr": gsnr,
        "learned": learned,
        "train_gain": np.full(shape, 2.0),
        "test_gain": 2 * np.where(learned <= 0.6, predicted, 1 - predicted),
    }
    frozen = np.ones(shape[1:]) * [[1, 1, 1, 1, 0.1], [1, 1, 4, 1, 1]]
    return xr.Dataset(
        {name: (("noise", "start", "step"), value) for name, value in found.items()}
        | {"frozen_gsnr": (("start", "step"), frozen)},
        {"noise": list(noises), "start": [0, 1], "step": STEPS},
    )


def test_the_correlation_is_over_points_that_count():
    found = OBSERVABLES["osgr-predicted"](planted())
    assert found.dims == () and float(found) == pytest.approx(1)
    predicted, _ = module.compared(planted())
    assert len(predicted) == 3 * 2 * 3
    short = planted((0.0,)).isel(step=[4])
    assert "not_applicable" in OBSERVABLES["osgr-predicted"](short).attrs


def test_random_labels_are_compared_early_and_in_the_worst_start():
    # a quarter of 100 steps: 0 and 20; a factor of 10 in both starts
    found = OBSERVABLES["random-labels-lower-gsnr"](planted())
    assert found.dims == () and float(found) == pytest.approx(1)
    changed = planted()
    changed["gsnr"][2, 1, 0] = 0.4
    changed["gsnr"][2, 0, 3] = 1000.0  # late: does not count
    assert float(OBSERVABLES["random-labels-lower-gsnr"](changed)) == pytest.approx(np.log10(1.5 / 0.3))
    assert "not_applicable" in OBSERVABLES["random-labels-lower-gsnr"](planted((0.0, 0.5))).attrs


def test_the_rise_is_relative_to_the_frozen_control():
    found = OBSERVABLES["feature-learning-raises-gsnr"](planted())
    assert found.dims == () and float(found) == pytest.approx(2 / 4)  # start 1: 2 against 4; start 0: 1 against 1
    assert "not_applicable" in OBSERVABLES["feature-learning-raises-gsnr"](planted((1.0,))).attrs


def test_networks_share_the_start_and_nothing_else():
    seen = []

    def make(shape, num_classes, *, generator=None):
        seen.append(generator)
        return models.mlp(shape, num_classes, width=(8,), generator=generator)

    found = module.one_arm(Lab(), noise=0.0, frozen=False, **SMALL | {"model": make})
    assert len(seen) == 1 and found.step.values.tolist() == [0, 5, 10, 15]
    assert float(found.learned[0]) == 0 and (found.learned < 1).all()
    assert (found.train_gain > 0).all()  # gradient descent on the whole sample
    # corrected moments promise less than plain ones, which are near what the samples themselves gain
    assert (found.predicted < found.predicted_plain).all()


def test_the_control_trains_the_last_layer_alone():
    free = module.one_arm(Lab(), noise=0.0, frozen=False, **SMALL)
    frozen = module.one_arm(Lab(), noise=0.0, frozen=True, **SMALL)
    assert float(free.gsnr[0]) != float(frozen.gsnr[0])
    assert float(frozen.train_gain.sum()) < float(free.train_gain.sum())


def test_noise_is_on_training_and_test_labels_alike(monkeypatch):
    drawn, plain = [], data.label_noise

    def noted(y, share, **settings):
        drawn.append((len(y), share, settings["generator"]))
        return plain(y, share, **settings)

    monkeypatch.setattr(module.data, "label_noise", noted)
    module.one_arm(Lab(), noise=0.5, frozen=False, **SMALL)
    last = drawn[-2:]
    assert [(count, share) for count, share, _ in last] == [(240, 0.5), (100, 0.5)] and last[0][2] != last[1][2]


def test_samples_that_cannot_be_disjoint_are_refused():
    with pytest.raises(InputError, match="3 samples of 100"):
        module.one_arm(Lab(), noise=0.0, frozen=False, **SMALL | {"networks": 3})
