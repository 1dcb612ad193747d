import math

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import wide_nets as bench
from phenoscope.studies.theory import gd_two_layer_relu as module

study = module.study
WIDTHS = [16, 128, 1024, 2048]


def result(**changes):
    widths, seeds, step = np.array(WIDTHS, dtype=float), np.arange(3), np.array([0, 10, 20])
    falls = (widths**-0.5)[:, None] * np.array([1.0, 2.0, 3.0])
    over_time = falls[:, :, None] * np.array([0.0, 1.0, 0.9])
    factor = np.full((4, 3), 0.99)
    residual = 60 * np.array([1.0, 0.99**10, 0.8 * 0.99**20]) * np.ones((4, 3, 1))
    updates = 60 * 0.9 ** np.arange(60.0)
    found = xr.Dataset(
        {
            "squares": (("width", "seed", "update"), np.broadcast_to(updates, (4, 3, 60))),
            "residual": (("width", "seed", "step"), residual),
            "gram_smallest": (("width", "seed", "step"), np.full((4, 3, 3), 0.1)),
            "flips": (("width", "seed", "step"), over_time),
            "displacement": (("width", "seed", "step"), over_time),
            "typical_displacement": (("width", "seed", "step"), over_time / 3),
            "limit_smallest": (("width", "seed"), np.full((4, 3), 0.13)),
            "factor": (("width", "seed"), factor),
            "radius": (("width", "seed"), 20 * falls),
            "pair_steps": ("seed", [44.0, 440.0, np.inf]),
            "pair_limit_smallest": ("seed", [1e-3, 2e-3, 1e-4]),
        },
        {"width": WIDTHS, "seed": seeds, "step": step},
        {"pair_width": 2048},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_slopes_are_the_exponents_of_means_without_the_control():
    broken = result()
    for name in ("flips", "displacement"):
        broken[name].loc[dict(width=16)] = 1e6
    assert float(observe("weights-stay-slope", broken)) == pytest.approx(-0.5)
    assert float(observe("patterns-stay", broken)) == pytest.approx(-0.5)
    assert float(observe("weights-stay-bound", broken)) == pytest.approx(1 / 20)


def test_the_rate_is_held_against_every_logged_step_of_wide_networks_until_they_are_fitted():
    below = result()
    below.residual[:, :, 1:] *= 0.999
    assert float(observe("linear-rate", below)) == 1.0
    below.residual.loc[dict(width=1024, seed=0, step=20)] = 60.0
    assert float(observe("linear-rate", below)) == pytest.approx(11 / 12)
    below.residual.loc[dict(width=1024, seed=0, step=20)] = np.nan  # diverged
    assert float(observe("linear-rate", below)) == pytest.approx(11 / 12)
    below.residual.loc[dict(width=1024, seed=0, step=20)] = 1e-7  # fitted: rounding is not held against it
    below.factor.loc[dict(width=1024, seed=0)] = 0.1
    assert float(observe("linear-rate", below)) == pytest.approx(10 / 11)  # its step 10 still is


def test_a_pair_that_is_never_fitted_counts_as_infinite():
    without = math.ceil(math.log(0.01) / math.log(0.9))
    assert float(observe("parallel-pair-breaks-speed", result())) == pytest.approx(440 / without)
    worse = result(pair_steps=("seed", [44.0, np.inf, np.inf]))
    assert float(observe("parallel-pair-breaks-speed", worse)) == math.inf
    assert float(observe("parallel-pair-breaks-eigenvalue", result())) == pytest.approx(65)


def test_what_was_not_run_does_not_apply():
    small = result().sel(width=[16, 128])
    for claim in ("linear-rate", "weights-stay-slope", "patterns-stay", "parallel-pair-breaks-speed"):
        assert "not_applicable" in observe(claim, small).attrs, claim
    assert "not_applicable" in observe("weights-stay-bound", small.sel(width=[16])).attrs
    unfinished = result(squares=result().squares * 0 + 1)
    assert "not_applicable" in observe("parallel-pair-breaks-speed", unfinished).attrs
    still = result(flips=result().flips * 0)
    assert "not_applicable" in observe("patterns-stay", still).attrs


def test_the_networks_gram_matrix_is_made_of_activation_patterns():
    x, _ = module.examples(Lab(0), n=12, d=5, seed=0)
    network = bench.two_layer_relu(5, width=64, generator=0)
    assert network.out.weight.abs().unique().tolist() == [1 / 8] and not network.out.weight.requires_grad
    on = (x @ network.hidden.weight.T >= 0).double()
    expected = (x @ x.T) * (on @ on.T) / 64
    torch.testing.assert_close(kernels.last_hidden_gram(network, x, layer="hidden"), expected, rtol=1e-6, atol=1e-6)
    wide = bench.two_layer_relu(5, width=100_000, generator=0)
    gap = kernels.last_hidden_gram(wide, x, layer="hidden") - kernels.two_layer_gram(x)
    assert float(gap.abs().max()) < 5 * 0.5 / math.sqrt(100_000)  # five standard errors of a share


def test_doubled_networks_start_at_zero():
    network = bench.two_layer_relu(5, width=64, antisymmetric=True, generator=0)
    x, _ = module.examples(Lab(0), n=12, d=5, seed=0)
    assert network.hidden.weight.shape == (64, 5) and float(network(x).detach().abs().max()) < 1e-14


def test_wide_networks_keep_their_promises_and_a_narrow_one_does_not():
    arm = dict(n=20, d=10, steps=200, every=20, seed=0)
    wide, narrow = (module.one_network(Lab(0), width=width, **arm) for width in (2048, 2))
    assert bool((wide.residual <= wide.factor**wide.step * wide.residual[0] * (1 + 1e-12)).all())
    assert float(wide.displacement.max() / wide.radius) < 1
    assert bool((wide.gram_smallest > wide.limit_smallest / 2).all())
    # twenty weights for twenty inputs: singular as soon as one pattern is not full
    assert float(narrow.gram_smallest.min()) < float(narrow.limit_smallest) / 2
    assert not bool((narrow.residual <= narrow.factor**narrow.step * narrow.residual[0] * (1 + 1e-12)).all())
    assert float(narrow.flips[-1]) > 3 * float(wide.flips[-1])
    np.testing.assert_allclose(wide.squares.values[[0, 20, 180]], wide.residual.values[[0, 1, 9]], rtol=1e-9)


def test_a_nearly_parallel_pair_takes_longer():
    arm = dict(n=10, d=10, width=256, seed=0)
    slow = module.with_pair(Lab(0), angle=1e-3, steps=300, **arm)
    apart = module.with_pair(Lab(0), angle=math.pi / 2, steps=300, **arm)
    assert float(slow.pair_steps) == math.inf and float(apart.pair_steps) < 300
    assert float(slow.pair_limit_smallest) < 0.02 * float(apart.pair_limit_smallest)
