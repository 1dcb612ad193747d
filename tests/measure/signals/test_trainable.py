from functools import partial

import pytest
import torch
from torch import nn

from phenoscope import data, measure, models, theory
from phenoscope.core.errors import InputError
from phenoscope.measure.signals.trainable import realized_mean_field


def make(sigma_w2=1.3, **knobs):
    init = partial(models.init_gaussian, sigma_w2=sigma_w2, sigma_b2=0.05)
    return partial(models.mlp, activation="tanh", init=init, **{"width": 64, **knobs})


def test_the_crossing_lies_on_the_line_between_two_depths():
    assert measure.crossing_depth([8, 15, 25], [0.9, 0.6, 0.1]) == pytest.approx(17)
    assert measure.crossing_depth([8, 15, 25], [0.9, 0.8, 0.7]) == 25  # censored
    assert measure.crossing_depth([8, 15, 25], [0.4, 0.8, 0.7]) == 8
    assert measure.crossing_depth([8, 15, 25], [0.9, 0.2, 0.7]) == pytest.approx(12)  # the first time counts
    assert measure.crossing_depth([8, 15], [0.8, 0.3], threshold=0.55) == pytest.approx(11.5)
    with pytest.raises(InputError, match="one accuracy for each depth"):
        measure.crossing_depth([8, 15], [0.9])


def test_a_networks_own_variances_lead_to_its_theory():
    model = make(1.3, width=300)((64,), 10, depth=12, generator=0)
    sigma_w2, sigma_b2, found = realized_mean_field(model)
    # 12 layers of 300 x 300 weights and 300 biases: relative errors of 0.2 and 2.5 percent
    assert sigma_w2 == pytest.approx(1.3, rel=0.01) and sigma_b2 == pytest.approx(0.05, rel=0.1)
    assert found.xi_c == pytest.approx(theory.mean_field("tanh", 1.3, 0.05).xi_c, rel=0.1)
    scaled = make(1.3, parametrization="ntk", width=300)((64,), 10, depth=12, generator=0)
    assert realized_mean_field(scaled)[0] == pytest.approx(1.3, rel=0.01)
    with_dropout = realized_mean_field(make(1.3, dropout=0.1)((64,), 10, depth=4, generator=0))[2]
    assert with_dropout.c_star < 1
    for unknown in (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)),
                    nn.Sequential(nn.Conv1d(3, 3, 1), nn.Tanh()), nn.Linear(3, 2)):  # fmt: skip
        assert realized_mean_field(unknown) is None


def test_a_deep_ordered_network_does_not_train_and_a_shallow_one_does():
    split = data.digits(train=300)
    found = measure.trainable_depth(
        make(0.8), split.train, depths=(2, 30), steps=60, optimizer=partial(torch.optim.RMSprop, lr=1e-3), generator=0
    )
    assert float(found.accuracy.sel(depth=2)) > 0.8 and float(found.accuracy.sel(depth=30)) < 0.3
    assert 2 < float(found.crossing) < 30
    assert float(found.predicted) == pytest.approx(6 * theory.mean_field("tanh", 0.8, 0.05).xi_c, rel=0.2)


def test_a_depth_does_not_depend_on_the_others():
    split = data.digits(train=200)
    settings = {"steps": 5, "generator": 3}
    alone = measure.trainable_depth(make(), split.train, depths=(3,), **settings)
    both = measure.trainable_depth(make(), split.train, depths=(2, 3), **settings)
    assert float(alone.accuracy[0]) == float(both.accuracy[1])
    with pytest.raises(InputError, match="growing"):
        measure.trainable_depth(make(), split.train, depths=(3, 2), **settings)
