import itertools

import numpy as np
import pytest
import xarray as xr

from phenoscope.studies.empirical import generalization_measures as module

study = module.study
SIZES = {"width": (8, 16, 32), "depth": (1, 2), "rate": (0.02, 0.1), "batch": (32, 128), "decay": (0.0, 5e-4)}
MEASURES = ["params", "log-prod-spec", "pacbayes-mag-flat"]


def planted(*, drop=(), seeds=2, **values):
    """A grid whose gap is known, with measures that are functions of it or of the hyperparameters."""
    grid = {**SIZES, "seed": range(seeds)}
    shape = tuple(len(column) for column in grid.values())
    gap = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape) / 1000
    width = np.broadcast_to(np.array(SIZES["width"]).reshape(-1, 1, 1, 1, 1, 1), shape)
    table = {"params": width, "log-prod-spec": -gap, "pacbayes-mag-flat": gap} | values
    fitted = np.ones(shape, dtype=bool)
    for place in drop:
        fitted[place] = False
    dims = tuple(grid)
    found = xr.Dataset(
        {
            "value": ((*dims, "measure"), np.stack([table[name] for name in MEASURES], -1)),
            "train_accuracy": (dims, np.ones(shape)),
            "test_accuracy": (dims, 1 - gap),
            "fitted": (dims, fitted),
        },
        {name: list(column) for name, column in grid.items()} | {"measure": MEASURES},
    )
    return found.merge(module.ranked(found))


def observe(claim, result):
    return study.observables[claim](result)


def test_a_perfect_ranking_scores_one_and_twice_as_much_above_its_opposite():
    result = planted()
    found = observe("flatness-ranks", result)
    assert found.dims == ("group",)
    assert found.group.values.tolist() == list(range(found.size))
    np.testing.assert_allclose(found.mean(), 1)
    np.testing.assert_allclose(observe("flatness-above-spectral-norms", result).mean(), 2)


def test_the_mean_over_groups_is_psi_although_axes_have_different_numbers_of_groups():
    chance = np.random.default_rng(1).normal(size=(3, 2, 2, 2, 2, 2))
    result = planted(**{"pacbayes-mag-flat": chance})
    found = observe("flatness-ranks", result)
    assert found.size == 32 + 4 * 48
    np.testing.assert_allclose(found.mean(), result.Psi.sel(measure="pacbayes-mag-flat"))
    difference = observe("flatness-above-spectral-norms", result).mean()
    psi = result.Psi.sel(measure=["pacbayes-mag-flat", "log-prod-spec"]).values
    np.testing.assert_allclose(difference, psi[0] - psi[1])


def test_the_count_of_parameters_is_scored_on_width_and_depth_alone():
    result = planted()
    expected = result.psi.sel(measure="params", axis=["width", "depth"]).mean()
    np.testing.assert_allclose(observe("parameter-count-fails", result), expected)
    assert float(result.psi.sel(measure="params", axis="rate")) == 0  # it does not see the rate


def test_networks_that_did_not_fit_are_not_ranked():
    places = list(itertools.product(range(1), range(2), range(2), range(2), range(2), range(2)))[:5]
    spoiled = np.zeros((3, 2, 2, 2, 2, 2))
    result = planted(drop=places)
    assert result.networks.values.tolist() == [91, 91, 91]
    wrong = planted(drop=places, **{"log-prod-spec": np.where(~result.fitted.values, 1e9, spoiled)})
    np.testing.assert_allclose(wrong.Psi.sel(measure="log-prod-spec"), 0)


def test_what_a_run_lacks_does_not_apply():
    result = planted()
    without = result.sel(measure=["params"])
    assert "not measured" in observe("flatness-ranks", without).attrs["not_applicable"]
    narrow = result.sel(axis=["rate"])
    assert "width" in observe("parameter-count-fails", narrow).attrs["not_applicable"]
    nothing = result.assign(group_tau=result.group_tau * np.nan)
    assert "no two networks" in observe("flatness-ranks", nothing).attrs["not_applicable"]


@pytest.mark.parametrize("measures", [MEASURES, ["params"]])
def test_the_figure_says_how_many_networks_were_ranked(measures):
    drawing = study.draw(planted(drop=[(0, 0, 0, 0, 0, 0)]).sel(measure=measures))
    assert "95 of 96" in drawing.layout.title.text
