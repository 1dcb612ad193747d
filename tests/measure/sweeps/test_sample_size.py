import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, stats, train
from phenoscope.core.errors import InputError
from phenoscope.measure import sample_size_curve

D = 12
RULE = data.teacher(D, noise=1.0, dtype=torch.float64, generator=0)


def least_squares(sample, *, generator):
    x, y = sample
    return torch.linalg.pinv(x) @ y


def excess(weights, sample):
    """Expected error on inputs N(0, I), without noise."""
    return (weights - RULE.weight).square().sum()


def test_least_squares_peaks_where_there_are_as_many_samples_as_dimensions():
    found = sample_size_curve(least_squares, RULE.sample, (3, 6, D, 24, 60), scores=excess, repeats=80, generator=0)
    peaks = [each for each in stats.turning_points(found.score.T, found.n, generator=0) if each.kind == "peak"]
    assert [peak.at for peak in peaks] == [D] and peaks[0].prominence.low > 2
    # E = d / (n - d - 1) beyond the peak; n = 60, 80 repeats: the mean spreads by 5 %
    assert float(found.score.sel(n=60).mean()) == pytest.approx(D / (60 - D - 1), rel=0.2)


def test_ways_to_train_get_the_same_samples_and_fewer_are_the_first_of_more():
    seen = {}

    def fit(name, sample, *, generator):
        seen.setdefault(name, []).append((sample[0].clone(), generator))
        return len(sample[0])

    ways = {name: functools.partial(fit, name) for name in ("a", "b")}
    found = sample_size_curve(
        ways, RULE.sample, (4, 2), repeats=3, generator=1,
        scores={"size": lambda fitted, _: fitted, "first": lambda _, sample: sample[0][0, 0]},
    )  # fmt: skip
    assert dict(found.sizes) == {"fit": 2, "n": 2, "repeat": 3} and found.n.values.tolist() == [4, 2]
    assert (found["size"].transpose("n", ...).values == np.array([4, 2])[:, None, None]).all()
    for (x, seed), (other, same) in zip(seen["a"], seen["b"], strict=True):
        assert torch.equal(x, other) and seed == same
    assert torch.equal(seen["a"][0][0][:2], seen["a"][1][0]) and seen["a"][0][1] == seen["a"][1][1]
    assert not torch.equal(seen["a"][0][0], seen["a"][2][0])
    assert (found.first.sel(fit="a") == found.first.sel(fit="b")).all()


def test_a_network_is_a_way_to_train():
    def fit(sample, *, generator):
        model = train.build(lambda: nn.Linear(D, 1).double(), generator=generator)
        adam = functools.partial(torch.optim.Adam, lr=0.05)

        def loss(outputs, y):
            return (outputs[:, 0] - y).square().mean()

        return train.fit(model, sample, steps=60, optimizer=adam, loss_fn=loss, batch_size=None).model

    found = sample_size_curve(
        fit, RULE.sample, (5, 200), repeats=2, generator=0,
        scores=lambda model, _: excess(model.weight.detach()[0], None),
    )  # fmt: skip
    assert (found.score.sel(n=200) < 0.3 * found.score.sel(n=5)).all()
    assert "fit" not in found.dims


def test_what_cannot_be_swept_is_refused():
    good = {"fits": least_squares, "sampler": RULE.sample, "ns": (4,), "scores": excess}

    def nan(n, generator):
        return torch.full((n, 2), torch.nan), torch.zeros(n)

    for changes, word in (
        ({"fits": {}}, "at least one fit"),
        ({"scores": {}}, "at least one fit"),
        ({"ns": (0,)}, "no n under 1"),
        ({"repeats": 0}, "repetition"),
        ({"sampler": lambda n, generator: RULE.sample(n - 1, generator)}, "3 samples instead of 4"),
        ({"sampler": nan}, "NaN"),
        ({"scores": lambda *_: torch.zeros(2)}, "one number"),
    ):
        settings = good | changes
        with pytest.raises(InputError, match=word):
            sample_size_curve(settings.pop("fits"), settings.pop("sampler"), settings.pop("ns"), **settings)
