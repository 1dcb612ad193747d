import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from phenoscope import measure
from phenoscope.studies.empirical import bias_variance as module

OBSERVABLES = module.study.observables
WIDTHS = list(module.WIDTHS)
BIAS = {"clean": [0.8, 0.5, 0.3, 0.2, 0.19, 0.18, 0.17, 0.16, 0.15, 0.1], "noisy": [0.9] * 9 + [0.12]}
VARIANCE = {"clean": [0.05, 0.1, 0.2, 0.3, 0.25, 0.2, 0.15, 0.1, 0.1, 0.1]}
VARIANCE["noisy"] = [0.1, 0.2, 0.4, 0.6, 0.9, 0.8, 0.5, 0.4, 0.35, 0.3]


def result(widths=WIDTHS):
    arms = ["clean", "noisy"]
    dims = ("labels", "width")
    found = xr.Dataset(
        {"bias": (dims, [BIAS[arm] for arm in arms]), "variance": (dims, [VARIANCE[arm] for arm in arms])},
        {"labels": arms, "width": WIDTHS},
    )
    return found.sel(width=list(widths))


def test_the_observables_are_read_off_the_planted_curves():
    found = {claim: OBSERVABLES[claim](result()) for claim in OBSERVABLES}
    assert all(value.dims == () for value in found.values())
    assert float(found["bias-falls-rank"]) == -1
    assert float(found["bias-falls-ratio"]) == pytest.approx(0.1 / 0.5)
    assert float(found["variance-unimodal-rise"]) == pytest.approx(0.9 / 0.1)
    assert float(found["variance-unimodal-fall"]) == pytest.approx(0.9 / 0.3)
    assert float(found["variance-unimodal-place"]) == 24
    assert float(found["noise-raises-variance-not-bias-variance"]) == pytest.approx(0.9 / 0.25)
    assert float(found["noise-raises-variance-not-bias-excess"]) == pytest.approx(0.9 / 0.25 - 0.12 / 0.1)


def test_the_rank_is_scipys_and_further_widths_do_not_enter_it():
    planted = result()
    planted["bias"] = planted.bias * xr.DataArray(np.random.default_rng(0).uniform(size=10), dims="width")
    expected = stats.spearmanr(WIDTHS, planted.bias.sel(labels="clean")).statistic
    more = xr.concat([planted, planted.isel(width=[0]).assign_coords(width=[1024]) + 5], "width")
    for each in (planted, more):
        assert float(OBSERVABLES["bias-falls-rank"](each)) == pytest.approx(expected)
        assert float(OBSERVABLES["variance-unimodal-place"](each)) == 24


def test_widths_that_were_not_run_do_not_apply():
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](result(widths=[2, 4, 16])).attrs
    assert float(OBSERVABLES["bias-falls-ratio"](result(widths=[4, 512]))) == pytest.approx(0.2)


def test_intervals_are_those_of_the_estimates_drawn_again(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 400)
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (60,), generator=rng)
    f = torch.nn.functional.one_hot(y, 4) + torch.randn(2, 5, 60, 4, generator=rng)
    found = module.intervals(f, y, generator=1)
    drawn = []
    for _ in range(400):
        who, which = torch.randint(5, (5,), generator=rng), torch.randint(60, (60,), generator=rng)
        again = measure.bias_variance_from_outputs(f[:, who][:, :, which], y[which]).mean()
        variance = float(again.variance) * 5 / 4
        drawn.append([float(again.risk) - variance, variance, float(again.risk)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    width = high - low  # quantiles of 400 draws miss by a tenth of the width, about
    for name, a, b, size in zip(("bias", "variance", "risk"), low, high, width, strict=True):
        assert abs(float(found[f"{name}_low"]) - a) < 0.2 * size and abs(float(found[f"{name}_high"]) - b) < 0.2 * size
    whole = measure.bias_variance_from_outputs(f, y).mean()
    assert found.variance_low < whole.variance < found.variance_high


def test_widths_and_labels_share_training_sets_and_starts():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import width_sweep as bench

    common = dict(model=bench.mlp, dataset=bench.digits, width=8, sets=3, repeats=1, steps=5)
    clean, again, noisy = (module.one_width(Lab(0), noise=noise, **common) for noise in (0, 0, 0.2))
    assert clean.equals(again)
    assert abs(noisy.risk - clean.risk) < 0.2 * clean.risk  # after five steps labels have hardly mattered
    assert noisy.risk != clean.risk
    assert float(clean.bias + clean.variance) == pytest.approx(float(clean.risk))
