import functools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure import randomization_test
from phenoscope.measure.sweeps.randomisation import KINDS, randomized

SPLIT = data.digits(train=200)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
mlp = functools.partial(models.mlp, width=256, depth=1)
fit = functools.partial(train.fit, steps=400, optimizer=SGD, batch_size=50, stop_at=0.02)


def table(kinds=("true", "random"), **settings):
    knobs = {"repeats": 1, "every": 4, "generator": 0, "device": "cpu", "make": mlp, "fit": fit} | settings
    return randomization_test(knobs.pop("make"), SPLIT.train, SPLIT.test, knobs.pop("fit"), kinds=kinds, **knobs)


def test_random_labels_are_fitted_more_slowly_and_teach_nothing():
    found = table(repeats=2)
    assert (found.train_accuracy >= 0.99).all()
    assert (found.test_accuracy.sel(kind="true") > 0.8).all()
    assert (found.test_accuracy.sel(kind="random") < 0.25).all()  # chance is 0.1, standard deviation 0.04 or so
    assert (found.fit_steps.sel(kind="random") > found.fit_steps.sel(kind="true")).all()
    assert (found.fit_steps <= found.steps).all() and (found.steps <= 400).all()


def test_a_network_that_is_too_small_never_fits():
    found = table(("random",), make=functools.partial(models.mlp, width=2, depth=1)).squeeze()
    assert np.isnan(found.fit_steps) and found.steps == 400 and float(found.train_accuracy) < 0.7
    assert float(found.curve[-1]) == float(found.train_accuracy)


def test_a_row_is_what_fit_makes_of_the_same_labels():
    seen = []

    def kept(model, part, **settings):
        seen.append((part, {name: value.clone() for name, value in model.state_dict().items()}))
        return fit(model, part, **settings)

    found = table(fit=kept)
    assert all(torch.equal(seen[0][1][name], seen[1][1][name]) for name in seen[0][1])  # one start for all kinds
    model = train.build(mlp, shape=(1, 8, 8), num_classes=10, generator=0)
    model.load_state_dict(seen[1][1])
    again = table(("random",))  # what is drawn does not depend on the kinds
    assert again.equals(found.sel(kind=["random"]).dropna("step", how="all"))
    assert torch.equal(seen[0][0][1], SPLIT.train[1]) and not torch.equal(seen[1][0][1], SPLIT.train[1])


def test_labels_stay_what_they_became():
    labels = []

    def spied(outputs, y):
        labels.append(y.clone())
        return nn.functional.cross_entropy(outputs, y)

    whole = functools.partial(train.fit, steps=20, optimizer=SGD, batch_size=None, loss_fn=spied)
    table(("random",), fit=whole)
    assert len(labels) == 20 and all(torch.equal(labels[0], each) for each in labels)


class Redrawn:
    """The wrong test: labels that are drawn anew in every epoch."""

    def __init__(self, part):
        self.part, self.rng = part, torch.Generator().manual_seed(0)

    def __iter__(self):
        x, _ = self.part
        for rows in torch.randperm(len(x), generator=self.rng).split(50):
            yield x[rows], torch.randint(10, (len(rows),), generator=self.rng)


def test_labels_drawn_anew_in_every_epoch_cannot_be_fitted():
    wrong = table(("random",), fit=lambda model, part, **settings: fit(model, Redrawn(part), **settings))
    assert float(wrong.train_accuracy.squeeze()) < 0.3 and np.isnan(wrong.fit_steps.squeeze())


def test_a_share_of_labels_is_replaced_by_any_class():
    y = torch.arange(10).repeat(1000)
    (_, noisy), test = randomized((torch.zeros(10_000, 1), y), SPLIT.test, 0.2, classes=10, generator=0)
    changed = int((noisy != y).sum())
    # of 2,000 replaced labels a tenth get their own class back: 18 % are changed
    assert stats.binomtest(changed, 2000, 0.9).pvalue > 1e-3 and test is SPLIT.test


def test_pixels_are_shuffled_alike_in_training_and_test_and_apart_in_every_image():
    own, tested_on = randomized(SPLIT.train, SPLIT.test, "shuffled_pixels", classes=10, generator=0)
    whole = torch.cat([own[0], tested_on[0]]).flatten(1)
    original = torch.cat([SPLIT.train[0], SPLIT.test[0]]).flatten(1)
    places = [int((original == whole[:, [k]]).all(0).nonzero()[0]) for k in range(64)]
    assert torch.equal(original[:, places], whole) and not torch.equal(original, whole)
    own, tested_on = randomized(SPLIT.train, SPLIT.test, "random_pixels", classes=10, generator=0)
    torch.testing.assert_close(own[0].flatten(1).sort().values, SPLIT.train[0].flatten(1).sort().values)
    assert tested_on is SPLIT.test and torch.equal(own[1], SPLIT.train[1])


def test_a_perceptron_does_not_see_the_order_of_pixels():
    found = table(("true", "shuffled_pixels"), repeats=6).test_accuracy
    difference = (found.sel(kind="true") - found.sel(kind="shuffled_pixels")).values
    assert abs(difference.mean()) < 0.02
    assert stats.ttest_1samp(difference, 0).pvalue > 0.01


def test_dropout_and_every_kind_give_the_same_bits_again():
    make = functools.partial(mlp, dropout=0.5)
    short = functools.partial(train.fit, steps=12, optimizer=SGD, batch_size=50)
    first = table(KINDS, make=make, fit=short)
    torch.rand(3)
    assert first.identical(table(KINDS, make=make, fit=short))
    assert first.kind.values.tolist() == [str(kind) for kind in KINDS] and first.curve.dims == (
        "repeat",
        "kind",
        "step",
    )


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"kinds": ()}, "at least one"),
        ({"kinds": ("true", "true")}, "once"),
        ({"kinds": ("blurred",)}, "blurred"),
        ({"kinds": (1.5,)}, "1.5"),
        ({"repeats": 0}, "repetition"),
        ({"fitted": 0.0}, "fitted"),
    ],
)
def test_tests_that_cannot_be_made_are_refused(settings, word):
    with pytest.raises(InputError, match=word):
        table(**settings)
