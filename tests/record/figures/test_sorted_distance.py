import numpy as np
import pytest
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record.figures import sorted_distance


def test_a_line_is_the_time_mean_of_every_filter_from_the_largest_down(recorded):
    _, run = recorded
    for trace in sorted_distance(run).data:
        mean = run.average(trace.name)["distance"].to_numpy()
        np.testing.assert_allclose(trace.y, np.sort(mean)[::-1], rtol=1e-6)  # float32
        np.testing.assert_allclose(trace.x, (np.arange(len(mean)) + 0.5) / len(mean), rtol=1e-6)


def test_the_menu_gives_raw_distance_or_distance_per_weight_and_the_axis_says_which(recorded, unpacked):
    _, run = recorded
    figure = sorted_distance(run)
    choices = {button.label: button.args for button in figure.layout.updatemenus[0].buttons}
    for measure, choice, title in [
        ("distance", "distance: raw", "raw distance"),
        ("distance_per_weight", "distance: per weight", "distance per weight"),
    ]:
        data, layout = choices[choice]
        assert layout["yaxis.title.text"].startswith(title)
        for trace, packed in zip(figure.data, data["y"], strict=True):
            mean = run.average(trace.name)[measure].to_numpy()
            np.testing.assert_allclose(unpacked(packed), np.sort(mean)[::-1], rtol=1e-6)  # float32
    assert figure.layout.yaxis.title.text.startswith("raw distance")


def test_a_wide_layer_is_shown_by_256_filters_with_the_first_and_last_among_them(record):
    run = record(nn.Linear(2, 1000), shape=(2,), steps=2)
    (trace,) = sorted_distance(run).data
    mean = run.average("weight")["distance"].to_numpy()
    assert len(trace.x) == len(trace.y) == 256
    np.testing.assert_allclose([trace.y[0], trace.y[-1]], [mean.max(), mean.min()], rtol=1e-6)  # float32


def test_an_unknown_layer_is_an_error(recorded):
    with pytest.raises(InputError, match="'nothing'"):
        sorted_distance(recorded[1], ["nothing"])
