import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.core.random import child_seeds
from phenoscope.measure import bias_variance, bias_variance_from_outputs
from phenoscope.measure.sweeps.bias_variance import outputs_by_split, squared_error

SPLIT = data.digits(train=400)
ADAM = functools.partial(torch.optim.Adam, lr=5e-3)
mlp = functools.partial(models.mlp, width=(8,))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n, classes, seed=0):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(2, 4), st.sampled_from(["squared", "cross_entropy"]))
def test_bias_and_variance_add_up_to_the_mean_loss(networks, n, classes, loss):
    outputs, y = normal(networks, n, classes) * 4, labels(n, classes)
    found = bias_variance_from_outputs(outputs.float(), y, loss=loss)
    if loss == "squared":
        direct = (outputs - nn.functional.one_hot(y, classes)).square().sum(-1).mean(0)
    else:
        direct = torch.stack([nn.functional.cross_entropy(one, y, reduction="none") for one in outputs]).mean(0)
    torch.testing.assert_close(torch.from_numpy(found.risk.values), direct, rtol=1e-5, atol=1e-6)  # float32 in
    total = torch.from_numpy((found.bias + found.variance).values)
    torch.testing.assert_close(total, direct, rtol=1e-5, atol=1e-6)


def test_the_terms_of_cross_entropy_are_the_divergences_they_are_said_to_be():
    outputs, y = normal(5, 20, 3) * 3, labels(20, 3)
    p = outputs.softmax(-1)
    q = p.log().mean(0).exp()
    q = q / q.sum(-1, keepdim=True)
    found = bias_variance_from_outputs(outputs, y, loss="cross_entropy")
    kl = (q * (q.log() - p.log())).sum(-1).mean(0)
    torch.testing.assert_close(torch.from_numpy(found.variance.values), kl, rtol=1e-9, atol=1e-12)
    bias = -q.gather(1, y[:, None])[:, 0].log()
    torch.testing.assert_close(torch.from_numpy(found.bias.values), bias, rtol=1e-9, atol=1e-12)
    # the trap: with probabilities averaged as they are, the two parts do not add up
    arithmetic = p.mean(0)
    parts = -arithmetic.gather(1, y[:, None])[:, 0].log()
    parts = parts + (arithmetic * (arithmetic.log() - p.log())).sum(-1).mean(0)
    assert (parts - torch.from_numpy(found.risk.values)).abs().max() > 0.05


def test_scores_that_are_certain_and_wrong_do_not_overflow():
    outputs = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]])
    found = bias_variance_from_outputs(outputs, torch.tensor([0]), loss="cross_entropy")
    assert float(found.risk[0]) == pytest.approx(200)
    assert float(found.variance[0]) == pytest.approx(200 - math.log(2))  # q is a half each


def test_a_planted_bias_and_noise_are_found():
    # f_m = y + b + s N(0, I), M = 2000, 30 points of 5 classes: the relative error of C s^2 is about
    # sqrt(2 / (2000 * 30 * 5)) = 0.3 %, that of |b|^2 about 2 s / (|b| sqrt(2000 * 30)) = 1 %
    y, b, s = labels(30, 5), torch.tensor([0.5, 0.0, -0.5, 0.0, 0.2], dtype=torch.float64), 0.7
    outputs = nn.functional.one_hot(y, 5) + b + s * normal(2000, 30, 5)
    found = bias_variance_from_outputs(outputs, y).mean()
    assert float(found.bias) == pytest.approx(float(b.square().sum()), rel=0.03)
    assert float(found.variance) == pytest.approx(5 * s**2, rel=0.03)


def test_two_networks_give_the_right_variance_on_average():
    # 20000 pairs of unit normals: the mean of s^2 has a standard error of sqrt(2 / 20000) = 1 %. Divided by M it is 1/2
    outputs, y = normal(2, 20000, 1), torch.zeros(20000, 1)
    found = bias_variance_from_outputs(outputs, y).mean()
    assert float(found.variance) == pytest.approx(1, abs=0.04)
    assert float(found.bias) == pytest.approx(0, abs=0.04)  # may be negative at single points
    assert (bias_variance_from_outputs(outputs, y).bias < 0).any()


def test_the_jackknife_corrects_the_variance_of_cross_entropy_for_few_networks():
    outputs, y = normal(4000, 50, 3), labels(50, 3)
    many = float(bias_variance_from_outputs(outputs, y, loss="cross_entropy").mean().variance)
    groups = outputs.view(1000, 4, 50, 3)
    plain, corrected = (
        float(bias_variance_from_outputs(groups, y, loss="cross_entropy", jackknife=jackknife).mean().variance)
        for jackknife in (False, True)
    )
    # of the log of a mean of three independent exponentials: first order in 1/M, here 4
    assert plain < 0.8 * many
    assert abs(corrected - many) < 0.1 * (many - plain)
    of_squares = [bias_variance_from_outputs(outputs[:4], y, jackknife=flag) for flag in (False, True)]
    assert of_squares[0].equals(of_squares[1])


def test_identical_networks_have_no_variance():
    outputs, y = normal(1, 10, 3).expand(4, 10, 3), labels(10, 3)
    for loss in ("squared", "cross_entropy"):
        found = bias_variance_from_outputs(outputs, y, loss=loss)
        assert abs(found.variance).max() < 1e-12
        assert (abs(found.bias - found.risk) < 1e-12).all()


def test_variance_is_taken_within_a_repetition():
    outputs, y = normal(3, 4, 10, 2), labels(10, 2)
    shifted = outputs + 100 * torch.arange(3)[:, None, None, None]
    plain, moved = (bias_variance_from_outputs(each, y).variance for each in (outputs, shifted))
    assert abs(plain - moved).max() < 1e-8
    single = [bias_variance_from_outputs(one, y).variance for one in outputs]
    assert abs(plain - sum(single) / 3).max() < 1e-12


def test_initialization_and_sampling_are_told_apart():
    # f = data effect (sd 1) + initialization effect (sd 2), 40 repeats x 5 parts x 3 inits x 50 points
    sampling, initialization = normal(40, 5, 1, 50, 1, seed=1), 2 * normal(40, 5, 3, 50, 1, seed=2)
    found = bias_variance_from_outputs(sampling + initialization, torch.zeros(50, 1)).mean()
    # standard errors: 4 sqrt(2 / 20000) = 0.04; (1 + 4/3) sqrt(2 / 8000) = 0.04
    assert float(found.initialization) == pytest.approx(4, abs=0.16)
    assert float(found.sampling) == pytest.approx(1, abs=0.16)
    assert float(found.variance) == pytest.approx(5, abs=0.24)


def test_outputs_that_cannot_be_split_are_refused():
    y = torch.tensor([0, 1])
    for outputs, targets, settings_, word in (
        (normal(1, 2, 3), y, {}, "at least two"),
        (normal(3, 2), y, {}, "networks, N, C"),
        (normal(3, 4, 3), y, {}, "as many labels"),
        (normal(3, 2, 3), y + 2, {}, "classes from 0 to 2"),
        (normal(3, 2, 3), y.double(), {}, "whole numbers"),
        (normal(3, 2, 3) / 0, y, {}, "not finite"),
        (normal(3, 2, 3), y, {"loss": "hinge"}, "hinge"),
        (normal(3, 2, 3), normal(2, 3), {"loss": "cross_entropy"}, "needs labels"),
        (normal(1, 3, 2, 2, 3), y, {"loss": "cross_entropy"}, "squared loss only"),
    ):
        with pytest.raises(InputError, match=word):
            bias_variance_from_outputs(outputs, targets, **settings_)


RECIPE = {"steps": 30, "optimizer": ADAM, "batch_size": None, "generator": 3}


def by_split(**changes):
    common = {"splits": 4, "repeats": 2, "inits": 1, "loss": "squared", "classes": 10, "schedule": None, "device": None}
    return outputs_by_split(mlp, SPLIT.train, SPLIT.test[0], **common | RECIPE | changes)


def test_training_sets_of_a_cut_are_disjoint_and_every_network_has_its_own_start():
    # the inputs are their own numbers: what a lookup table has learned after one step says what it was trained on
    x = torch.arange(12)[:, None, None] == torch.arange(12)[:, None]
    x = x.float().flatten(1)

    def table(shape, num_classes, *, generator):
        model = nn.Linear(12, num_classes, bias=False)
        nn.init.zeros_(model.weight)
        return model

    outputs = outputs_by_split(
        table, (x, torch.ones(12, dtype=torch.long)), x, splits=3, repeats=2, inits=1, loss="squared", classes=2,
        steps=1, optimizer=functools.partial(torch.optim.SGD, lr=0.1), batch_size=None, schedule=None, device=None,
        generator=0,
    )  # fmt: skip
    learned = outputs[:, :, 0, :, 1] > 0
    assert learned.sum(-1).eq(4).all() and learned.sum(1).eq(1).all()
    assert not torch.equal(learned[0], learned[1])  # another cut
    starts = by_split(steps=1, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
    flat = starts.flatten(0, 2)
    assert all(not torch.equal(flat[i], flat[j]) for i in range(8) for j in range(i))


def test_a_network_of_the_sweep_is_the_same_network_trained_alone_on_its_part():
    outputs = by_split()
    cuts, seeds = child_seeds(3, 2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(cuts))
    model = train.build(mlp, shape=(1, 8, 8), num_classes=10, generator=child_seeds(seeds, 8)[1])
    x, y = SPLIT.train[0][order[100:200]], SPLIT.train[1][order[100:200]]
    train.fit(
        model, (x, y), steps=30, optimizer=ADAM, batch_size=None,
        loss_fn=lambda outputs, y: (outputs - nn.functional.one_hot(y, 10)).square().sum(-1).mean(),
    )  # fmt: skip
    # sums in another order, 30 steps of Adam
    torch.testing.assert_close(outputs[0, 1, 0], train.outputs(model, SPLIT.test), rtol=1e-3, atol=1e-3)


def test_training_and_splitting_are_one_call_and_a_seed_gives_the_same_bits():
    found = bias_variance(mlp, SPLIT.train, SPLIT.test, splits=4, repeats=2, **RECIPE)
    assert found.equals(bias_variance_from_outputs(by_split()[:, :, 0], SPLIT.test[1]))
    assert found.equals(bias_variance(mlp, SPLIT.train, SPLIT.test, splits=4, repeats=2, **RECIPE))
    assert dict(found.sizes) == {"example": len(SPLIT.test[1])}


def test_a_network_that_starts_at_one_point_has_sampling_variance_alone():
    def zero(shape, num_classes, *, generator):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model

    found = bias_variance(zero, SPLIT.train, SPLIT.test, splits=4, inits=2, **RECIPE).mean()
    assert float(found.initialization) == pytest.approx(0, abs=1e-9) and float(found.sampling) > 0.05
    # the trap: several seeds on one training set see only the variance of initialization
    random = bias_variance(mlp, SPLIT.train, SPLIT.test, splits=4, inits=2, **RECIPE).mean()
    assert float(random.initialization) < float(random.variance)


def test_cross_entropy_is_trained_with_and_split():
    found = bias_variance(
        mlp, SPLIT.train, SPLIT.test, splits=2, loss="cross_entropy", steps=60, optimizer=ADAM, batch_size=32,
        generator=0,
    ).mean()  # fmt: skip
    assert float(found.risk) < 0.7 * math.log(10)  # it has learned
    assert 0 < float(found.variance) < float(found.risk)


def test_parts_that_cannot_be_are_refused():
    for changes in ({"splits": 1}, {"splits": 401}, {"repeats": 0}, {"inits": 0}):
        with pytest.raises(InputError, match="splits must be at least 2"):
            bias_variance(mlp, SPLIT.train, SPLIT.test, **RECIPE, **changes)


def test_the_loss_sums_over_classes_and_averages_over_points():
    outputs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert float(squared_error(outputs, torch.tensor([0, 0]))) == pytest.approx((0 + 1.5) / 2)
