import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.core.random import child_seeds
from phenoscope.measure import double_descent, effective_model_complexity
from phenoscope.measure.sweeps.double_descent import drawn

SPLIT = data.digits(train=1200)
ADAM = functools.partial(torch.optim.Adam, lr=5e-3)
mlp = functools.partial(models.mlp, depth=1)


def squared(outputs, y):
    return (outputs - nn.functional.one_hot(y, outputs.shape[-1])).square().sum(-1).mean()


def sweep(**settings):
    chosen = {"widths": (8,), "steps": 30, "repeats": 2, "optimizer": ADAM, "batch_size": None, "ns": (60,)}
    return double_descent(mlp, SPLIT.train, SPLIT.test, **chosen | {"generator": 0, "loss_fn": squared} | settings)


def test_one_width_of_the_fleet_is_the_same_network_trained_alone():
    found = sweep(label_noise=0.5)
    for repeat, seed in enumerate(child_seeds(0, 2)):
        rows, labels = drawn(SPLIT.train[1], classes=10, noises=(0.5,), seeds=(seed,))
        x, y = SPLIT.train[0][rows[0, :60]], labels[0][rows[0, :60]]
        model = train.build(mlp, shape=(1, 8, 8), num_classes=10, width=8, generator=seed)
        train.fit(model, (x, y), steps=30, optimizer=ADAM, loss_fn=squared, batch_size=None, generator=seed)
        one = found.sel(noise=0.5, n=60, width=8, repeat=repeat, step=30)
        outputs = train.outputs(model, SPLIT.test)
        assert float(one.test_loss) == pytest.approx(float(squared(outputs, SPLIT.test[1])), rel=1e-4)
        # a decision may turn on rounding: one point of 60, and two of 597
        assert float(one.train_error) == pytest.approx(1 - train.accuracy(model, (x, y)), abs=0.017)
        assert float(one.test_error) == pytest.approx(1 - train.accuracy(model, SPLIT.test), abs=0.004)


def test_labels_are_made_wrong_once_and_test_labels_never():
    rows, labels = drawn(SPLIT.train[1], classes=10, noises=(0.0, 0.2, 1.0), seeds=(1, 2))
    wrong = (labels != SPLIT.train[1]).double().mean(1)
    assert wrong[:2].eq(0).all()
    assert (wrong[2:4] - 0.18).abs().max() < 0.02  # a tenth of 240 draws hits the own class, sd 0.004
    assert (wrong[4:] - 0.9).abs().max() < 0.04
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[0], rows[4])  # paired: the same points in every arm
    assert not torch.equal(rows[0], rows[1])
    assert all(len(set(row.tolist())) == 1200 for row in rows)


def test_clean_labels_are_fitted_and_generalize_and_random_ones_do_not():
    found = sweep(widths=(128,), steps=300, label_noise=(0.0, 1.0), ns=(100,)).squeeze()
    assert (found.train_error.sel(noise=0.0) == 0).all()
    assert (found.train_error.sel(noise=1.0) < 0.05).all()
    assert (found.test_error.sel(noise=0.0) < 0.35).all()  # 100 digits teach about 80 %
    assert (found.test_error.sel(noise=1.0) > 0.8).all()  # chance is 0.9


def test_training_error_falls_with_width():
    found = sweep(widths=(2, 8, 64), steps=200, ns=(100,)).mean("repeat").squeeze()
    assert (np.diff(found.train_error) < 0).all()


def test_strong_weight_decay_takes_the_peak_away():
    found = {}
    small = functools.partial(mlp, init=functools.partial(models.init_gaussian, sigma_w2=1 / 3))
    for decay in (0.0, 0.1):
        found[decay] = double_descent(
            small, SPLIT.train, SPLIT.test, widths=(4, 16, 128), ns=(60,), repeats=4, steps=800, batch_size=None,
            optimizer=functools.partial(ADAM, weight_decay=decay), schedule=train.linear_decay(800), loss_fn=squared,
            generator=0,
        ).mean("repeat").squeeze()  # fmt: skip
    narrow, critical, wide = found[0.0].test_loss.values
    assert critical > narrow + 0.1 and critical > wide + 0.2
    assert found[0.0].train_error[1] < 0.1 < found[0.0].train_error[0]  # the peak is where the labels are just fitted
    assert (np.diff(found[0.1].test_loss) < 0).all()


def test_the_surface_has_a_coordinate_for_everything_that_varies():
    found = sweep(widths=(4, 8), ns=(20, 40), label_noise=(0.0, 0.2), at=(1, 10, 30), batch_size=16)
    assert dict(found.sizes) == {"noise": 2, "n": 2, "width": 2, "repeat": 2, "step": 3}
    assert found.step.values.tolist() == [1, 10, 30] and found.width.values.tolist() == [4, 8]
    assert not found.isnull().any().to_array().any()
    again = sweep(widths=(4, 8), ns=(20, 40), label_noise=(0.0, 0.2), at=(1, 10, 30), batch_size=16)
    assert found.equals(again)


def test_sweeps_refuse_what_cannot_be():
    for settings, word in (
        ({"widths": ()}, "at least one width"),
        ({"repeats": 0}, "one repetition"),
        ({"ns": (1201,)}, "1200 samples"),
        ({"label_noise": 1.2}, "label_noise"),
    ):
        with pytest.raises(InputError, match=word):
            sweep(**settings)


def halfspace(model, sample, *, generator):
    """Fit a linear rule by logistic regression to convergence."""
    from sklearn.linear_model import LogisticRegression

    x, y = sample
    found = LogisticRegression(C=1e6, fit_intercept=False, max_iter=2000).fit(x.numpy(), y.numpy())
    with torch.no_grad():
        model.weight.copy_(torch.stack([-torch.from_numpy(found.coef_[0]), torch.from_numpy(found.coef_[0])]))


def random_labels(n, generator, *, d):
    rng = torch.Generator().manual_seed(generator)
    y = torch.randint(2, (n,), generator=rng)
    y[:2] = torch.tensor([0, 1])
    return torch.randn(n, d, generator=rng), y


def test_a_linear_rule_fits_twice_as_many_random_labels_as_it_has_weights():
    # Cover (1965): n points in general position in d dimensions are separable with probability 1/2 at n = 2 d
    d = 100
    found = effective_model_complexity(
        lambda: nn.Linear(d, 2, bias=False), functools.partial(random_labels, d=d), halfspace,
        ns=range(100, 301, 4), eps=0.01, generator=0,
    )  # fmt: skip
    assert abs(found - 2 * d) <= 0.1 * 2 * d


def test_complexity_ends_with_the_grid():
    common = {"sampler": functools.partial(random_labels, d=10), "fit": halfspace, "generator": 0}

    def make():
        return nn.Linear(10, 2, bias=False)

    assert effective_model_complexity(make, ns=(2, 4, 6), eps=0.0, **common) == 6
    assert effective_model_complexity(make, ns=(200, 400), eps=0.0, **common) == 0
    for settings in ({"ns": ()}, {"ns": (0,)}, {"ns": (4,), "eps": 1.0}, {"ns": (4,), "draws": 0}):
        with pytest.raises(InputError):
            effective_model_complexity(make, **common | settings)
