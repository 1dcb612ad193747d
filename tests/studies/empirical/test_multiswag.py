import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope import train
from phenoscope.studies.empirical import multiswag as module

OBSERVABLES = module.study.observables
WIDTHS = [8, 32, 64, 128, 256]
# one training's test loss by width; averages are lower and have a smaller bump
CURVES = {"SGD": [1.0, 2.0, 3.0, 2.5, 3.5], "deep ensemble": [0.9, 1.2, 1.5, 1.4, 1.3]}
CURVES["MultiSWAG"] = [0.8, 0.7, 0.9, 1.0, 1.2]
STDS = [0.0, 0.25, 0.5, 1.0]


def result(widths=WIDTHS, stds=STDS):
    nll = np.array(list(CURVES.values()))[:, :, None, None] + np.array([-0.1, 0.0, 0.1])[:, None] + np.array(STDS)
    dims = ("arm", "width", "repeat", "std")
    found = xr.Dataset(
        {"nll": (dims, nll)},
        {"arm": list(CURVES), "width": WIDTHS, "repeat": range(3), "std": STDS, "passes": ("arm", [1, 5, 50])},
    )
    return found.sel(width=list(widths), std=list(stds))


def test_the_observables_are_read_off_the_planted_curves():
    planted = result()
    planted.nll.loc[dict(arm="SGD", width=128, repeat=1, std=0.0)] = 1.5  # the smallest gain over the ensemble
    planted.nll.loc[dict(arm="MultiSWAG", width=64, repeat=2, std=1.0)] += 1.9  # one of nine cells lost, barely
    planted.nll.loc[dict(arm="MultiSWAG", width=64, repeat=1, std=0.25)] += 99.0  # a noise that does not count
    found = {claim: OBSERVABLES[claim](planted) for claim in OBSERVABLES}
    assert all(value.dims == () for value in found.values())
    assert float(found["ensemble-beats-single-nll"]) == pytest.approx(1.5 - 1.4)
    assert float(found["multiswag-beats-ensemble"]) == pytest.approx(8 / 9)


def test_a_bump_is_the_largest_rise_above_a_narrower_width_and_leaves_out_both_ends():
    rise = {"SGD": 3.0 - 1.0, "MultiSWAG": 1.0 - 0.7}  # width 256 has more, but is an end
    found = {claim: float(OBSERVABLES[claim](result())) for claim in OBSERVABLES}
    assert found["alleviates-double-descent-gain"] == pytest.approx(rise["SGD"] - rise["MultiSWAG"])
    assert found["alleviates-double-descent-own-bump"] == pytest.approx(rise["SGD"] / 4 - rise["MultiSWAG"])
    falling = result()
    falling["nll"] = falling.nll.copy(data=-np.arange(5.0)[:, None, None] + np.zeros_like(falling.nll))
    assert float(module.bump(falling, "SGD", 1.0, "SGD")) == 0
    assert float(module.bump(falling, "SGD", 2.0, "SGD")) == -1  # the rise of a falling curve is its smallest fall


def test_repeats_have_bumps_of_their_own():
    planted = result()
    planted.nll.loc[dict(arm="SGD", width=32, repeat=0, std=0.0)] += 10.0
    assert float(OBSERVABLES["alleviates-double-descent-gain"](planted)) == pytest.approx((11 + 2 + 2) / 3 - 0.3)


def test_widths_and_noises_that_were_not_run_do_not_apply():
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](result(widths=[8, 64])).attrs
        assert "not_applicable" in OBSERVABLES[claim](result(stds=[0.25])).attrs
    assert "std 1.0" in OBSERVABLES["multiswag-beats-ensemble"](result(stds=[0.0, 0.5])).attrs["not_applicable"]


class Fixed(nn.Module):
    """The same probabilities for every input."""

    def __init__(self, *probabilities):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, x):
        return self.scores.expand(len(x), -1) + 0 * x.sum()


def test_methods_average_probabilities_and_say_how_many_networks_they_ask():
    a, b, c = (0.5, 0.4, 0.1), (0.1, 0.4, 0.5), (0.2, 0.6, 0.2)
    fleets = {
        "trained": train.Fleet.of([Fixed(*a), Fixed(*b)]),
        "longer": train.Fleet.of([Fixed(*c), Fixed(*c)]),
        "sampled": train.Fleet.of([Fixed(*each) for each in (a, c, b, c)]),  # two around each
    }
    y = torch.tensor([0, 1])
    found = module.compared(fleets, torch.zeros(2, 3), y, 2)
    loss = {str(name): float(found.nll.sel(arm=name)) for name in found.arm.values}
    expected = {
        "SGD": [np.log([0.5, 0.4]), np.log([0.1, 0.4])],
        "deep ensemble": [np.log([0.3, 0.4])],
        "ensemble, trained on": [np.log([0.2, 0.6])],
        "SWAG": [np.log([0.35, 0.5]), np.log([0.15, 0.5])],
        "MultiSWAG, one sample": [np.log([0.3, 0.4])],
        "MultiSWAG": [np.log([0.25, 0.5])],
    }
    assert loss == {name: pytest.approx(-np.mean(values), abs=1e-6) for name, values in expected.items()}
    assert found.passes.values.tolist() == [1, 2, 2, 2, 2, 4]
    assert float(found.error.sel(arm="SGD")) == pytest.approx((0.5 + 1) / 2)
    assert float(found.error.sel(arm="MultiSWAG")) == pytest.approx(0.5)


def test_a_width_is_trained_on_wrong_labels_and_tested_on_right_ones_with_one_noise_at_all_strengths():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import fitted_nets as bench

    common = dict(model=module.mlp, dataset=bench.mnist1d, width=8, repeats=2, members=2, samples=2)
    common |= dict(steps=6, swag_steps=4, every=2)
    one = module.one_width(Lab(0), stds=(0.0, 1.0), **common)
    assert one.equals(module.one_width(Lab(0), stds=(0.0, 1.0), **common))
    assert set(one.sizes.items()) == {("arm", 6), ("std", 2), ("repeat", 2)} and int(one.width) == 8
    assert one.trainings.values.tolist() == [1, 2, 2, 1, 2, 2] and one.passes.dims == ("arm",)
    alone = module.one_width(Lab(0), stds=(1.0,), **common)
    assert alone.isel(std=0).drop_vars("std").equals(one.isel(std=1).drop_vars("std"))
