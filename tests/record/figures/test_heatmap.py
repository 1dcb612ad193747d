import numpy as np
import pytest
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record import open_run
from phenoscope.record.figures import heatmap
from phenoscope.record.layers import find_layers
from phenoscope.record.passes.watched import Moved
from phenoscope.record.writer import RunWriter


def test_a_small_layer_is_shown_value_by_value_sorted_by_its_mean(recorded):
    _, run = recorded
    figure = heatmap(run)
    layer = run[next(iter(run))]
    for trace, measure in zip(figure.data, ("changed", "idle", "distance_per_weight", "distance"), strict=True):
        order = [int(name) for name in trace.y]
        values = layer[measure].to_numpy().T[order]
        expected = np.log10(np.where(values > 0, values, np.nan)) if measure == "distance" else values
        np.testing.assert_allclose(trace.z, expected, rtol=1e-5)  # float32, and a logarithm
        means = values.mean(1)
        assert (np.diff(means) <= 1e-12).all()
        np.testing.assert_array_equal(trace.x, layer["step"])
    assert [trace.visible for trace in figure.data] == [True, False, False, False]


def test_menus_choose_layer_and_measure(recorded, unpacked):
    _, run = recorded
    by_layer, by_measure = heatmap(run).layout.updatemenus
    assert [button.label for button in by_layer.buttons] == [f"layer: {name}" for name in run]
    for name, button in zip(run, by_layer.buttons, strict=True):
        for y, z in zip(button.args[0]["y"], button.args[0]["z"], strict=True):
            assert unpacked(z).shape == (len(run.layers[name]), 12) and sorted(map(int, y)) == list(range(len(y)))
    assert [button.args[0]["visible"].index(True) for button in by_measure.buttons] == [0, 1, 2, 3]


def test_a_long_run_of_wide_layers_stays_below_300_000_cells_and_keeps_its_mean(tmp_path, unpacked):
    model = nn.Sequential(*[nn.Linear(4, 200, bias=False) for _ in range(2)], *[nn.Linear(4, 100) for _ in range(18)])
    layers = [found.layer for found in find_layers(model)[0]]
    filters = sum(map(len, layers))
    rng = np.random.default_rng(0)
    writer = RunWriter(tmp_path / "run", [(layer, 1e-3) for layer in layers], {"every": 1})
    for step in range(1, 701):
        changed = rng.integers(0, 5, filters)
        writer.add(step, Moved(rng.random(filters), changed, changed))
    writer.close()
    run = open_run(tmp_path / "run")
    figure = heatmap(run)
    cells = sum(trace.z.size for trace in figure.data)
    choices = figure.layout.updatemenus[0].buttons
    assert len(choices) == 16  # of 20 layers
    sizes = [unpacked(z).size for button in choices for z in button.args[0]["z"]]
    assert cells + sum(sizes) < 300_000 and min(sizes) > 3000
    # bins differ in size by one at most, so that their plain mean is near that of all values: within a few percent
    np.testing.assert_allclose(figure.data[0].z.mean(), run[layers[0].name]["changed"].mean(), rtol=0.05)
    assert sum(1 + int(name.split()[2]) if "more" in name else 1 for name in figure.data[0].y) == 200


def test_an_unknown_layer_and_a_run_without_records_are_errors(recorded, record):
    with pytest.raises(InputError, match="'nothing'"):
        heatmap(recorded[1], ["nothing"])
    with pytest.raises(InputError, match="no records yet"):
        heatmap(record(nn.Linear(2, 2), shape=(2,), steps=0))
