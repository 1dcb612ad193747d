import numpy as np
import pytest
import xarray as xr

from phenoscope.core.errors import InputError
from phenoscope.report.figures import accuracy_by_density
from phenoscope.stats import bootstrap


def result(repeats=5):
    rng = np.random.default_rng(0)
    accuracy = 0.6 + 0.1 * rng.random((2, 3, repeats))
    return xr.Dataset(
        {
            "accuracy": (("arm", "density", "repeat"), accuracy),
            "collapsed": (("arm", "density", "repeat"), np.zeros((2, 3, repeats))),
            "dense_accuracy": ("repeat", 0.9 + 0.01 * rng.random(repeats)),
        },
        {"arm": ["one", "other"], "density": [0.5, 0.02, 0.1]},
    )


def test_every_method_is_a_line_of_means_with_the_intervals_of_the_bootstrap():
    found = result()
    figure = accuracy_by_density(found)
    assert [line.name for line in figure.data] == ["one", "other"]
    line = figure.data[1]
    assert list(line.customdata[:, 0]) == [0.02, 0.1, 0.5]
    for place, density in enumerate((0.02, 0.1, 0.5)):
        mean, low, high = bootstrap(found.accuracy.sel(arm="other", density=density), generator=0)
        np.testing.assert_allclose(line.y[place], mean)
        np.testing.assert_allclose(line.y[place] + line.error_y.array[place], high)
        np.testing.assert_allclose(line.y[place] - line.error_y.arrayminus[place], low)
    np.testing.assert_allclose(figure.layout.shapes[0].y0, found.dense_accuracy.mean())


def test_a_collapsed_layer_makes_the_mark_hollow():
    found = result()
    found["collapsed"].loc[{"arm": "one", "density": 0.02, "repeat": 3}] = 1
    figure = accuracy_by_density(found)
    assert [tuple(line.marker.symbol) for line in figure.data] == [
        ("circle-open", "circle", "circle"),
        ("circle", "circle", "circle"),
    ]


def test_one_repetition_has_no_whiskers_and_missing_ones_are_left_out():
    single = accuracy_by_density(result(1)).data[0]
    assert not np.any(single.error_y.array) and not np.any(single.error_y.arrayminus)
    found = result()
    found["accuracy"][:, :, 3:] = np.nan
    line = accuracy_by_density(found).data[0]
    np.testing.assert_allclose(line.y, found.sortby("density").accuracy[0, :, :3].mean("repeat"))
    assert line.customdata[:, 3].tolist() == [3, 3, 3]


def test_whiskers_of_accuracies_stay_between_zero_and_one():
    found = result(2)
    found["accuracy"][:] = [0.9, 1.0]
    line = accuracy_by_density(found).data[0]
    assert np.allclose(line.y + line.error_y.array, 1) and np.allclose(line.y - line.error_y.arrayminus, 0.3, atol=0.1)


def test_a_result_of_something_else_is_refused():
    with pytest.raises(InputError, match=r"no result of prune\.compare"):
        accuracy_by_density(xr.Dataset({"accuracy": ("density", [1.0])}))
