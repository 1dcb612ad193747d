import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import settling as settled_layers
from phenoscope.record.figures import settling


@pytest.fixture
def planted(tmp_path):
    """planted(stops, updates) -> a run in which layer i moves up to update stops[i]."""

    def make(stops, updates=40):
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in stops))
        with Recorder(model, tmp_path / "run", every=1, threshold=0.05) as recorder, torch.no_grad():
            for update in range(1, updates + 1):
                for layer, stop in zip(model, stops, strict=True):
                    layer.weight.add_(0.1 * (update <= stop))
                recorder.step()
        return open_run(tmp_path / "run")

    return make


def test_the_map_shows_the_changed_share_and_the_marks_where_layers_settle(planted):
    run = planted([10, 5, 40])
    heat, marks, line = settling(run).data
    np.testing.assert_array_equal(heat.z, run.means["changed"].values.T)
    np.testing.assert_array_equal(heat.x, run.means["step"])
    np.testing.assert_array_equal(marks.x, [10, 5, np.nan])
    np.testing.assert_array_equal(line.x, [10, 10, np.nan])
    assert list(marks.text) == ["0", "1", "2"]


def test_another_threshold_is_shown_as_it_is_given(planted):
    run = planted([10, 40])
    assert settling(run, settled_layers(run, threshold=1.0, window=1)).data[1].x[0] == 10


def test_long_runs_and_many_layers_are_thinned(planted):
    heat, marks, _ = settling(planted([3] * 100, updates=700)).data
    assert heat.z.shape == (80, 300) and len(marks.x) == 80 and marks.text[-1] == "99"


def test_too_few_records_are_refused(planted):
    with pytest.raises(InputError, match="fewer than window"):
        settling(planted([1], updates=3))
