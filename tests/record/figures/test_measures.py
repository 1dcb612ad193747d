import itertools
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record import Recorder, open_run
from phenoscope.record.figures import measures

ROWS = ["changed", "idle", "distance_per_weight", "distance"]


def test_lines_show_the_layer_means_in_four_rows(recorded):
    _, run = recorded
    traces = iter(measures(run).data)
    for row, measure in enumerate(ROWS):
        for name in run:
            trace = next(traces)
            assert (trace.name, trace.yaxis) == (name, f"y{row + 1}" if row else "y")
            np.testing.assert_array_equal(trace.x, run.means["step"])
            # stored as float32
            np.testing.assert_allclose(trace.y, run.means[measure].sel(layer=name), rtol=1e-6)
    assert next(traces, None) is None


def test_axis_titles_say_which_distance_is_shown(recorded):
    layout = measures(recorded[1]).layout
    titles = [layout[f"yaxis{n}"].title.text for n in ("", 2, 3, 4)]
    assert titles == ["changed share S", "idle share Z", "distance per weight", "raw distance D"]


def test_a_gap_breaks_the_lines(tmp_path):
    model = nn.Conv2d(3, 4, 3)
    for resume in (False, True):
        with Recorder(model, tmp_path / "run", every=1, threshold=1e-3, resume=resume) as recorder:
            for _ in range(3):
                with torch.no_grad():
                    model.weight.add_(0.01)
                recorder.step()
    run = open_run(tmp_path / "run")
    gaps = run.means["gap"].to_numpy()
    assert gaps.sum() == 1
    for trace in measures(run).data:
        np.testing.assert_array_equal(np.isnan(trace.y), gaps)
        assert trace.connectgaps is None


def test_a_long_run_is_shown_by_400_means_of_all_its_records(tmp_path):
    model = nn.Linear(2, 2)
    with Recorder(model, tmp_path / "run", every=1, threshold=1e-3) as recorder:
        for step in range(1000):
            with torch.no_grad():
                model.weight.add_(1e-3 * (step % 7))
            recorder.step()
    run = open_run(tmp_path / "run")
    line = measures(run).data[-1]
    assert len(line.x) == len(line.y) == 400
    expected = [
        part.mean() for part in np.split(run.means["distance"][:, 0].to_numpy(), np.arange(1, 400) * 1000 // 400)
    ]
    np.testing.assert_allclose(line.y, expected, rtol=1e-6)  # float32


def test_six_layers_show_at_first_and_at_most_40_can_be_shown(record):
    run = record(nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]), shape=(2,), steps=2)
    traces = [trace for trace in measures(run).data if trace.yaxis == "y"]
    shown = [trace.name for trace in traces if trace.visible is True]
    assert len(traces) == 40 and len(shown) == 6 and (shown[0], shown[-1]) == ("0", "49")
    chosen = [trace.name for trace in measures(run, ["3", "30"]).data if trace.yaxis == "y" and trace.visible is True]
    assert chosen == ["3", "30"]


def test_a_legend_entry_toggles_its_layer_in_all_rows_and_runs(record):
    runs = [record(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), name, (2,), steps=2) for name in "ab"]
    runs.append(record(nn.Sequential(nn.Linear(2, 3)), "c", (2,), steps=2))
    figure = measures(runs)
    groups = {}
    for trace in figure.data:
        groups.setdefault(trace.legendgroup, []).append(trace)
    assert sorted(len(traces) for traces in groups.values()) == [4, 8, 8]
    assert all(sum(trace.showlegend for trace in traces) == 1 for traces in groups.values())
    titles = [trace.legendgrouptitle.text for trace in figure.data if trace.showlegend]
    assert titles == ["a, b", "", "c"]  # a title stands before the first layer of each network
    assert [title.text for title in figure.layout.annotations] == ["a", "b", "c"]


def test_menus_switch_every_axis_between_linear_and_log(recorded):
    _, run = recorded
    menus = measures([run, run]).layout.updatemenus
    axes = set()
    for menu in menus:
        linear, log = (button.args[0] for button in menu.buttons)
        assert linear.keys() == log.keys()
        axes |= {key.partition(".")[0] for key, value in log.items() if value == "log"}
    assert axes == {f"{letter}axis{number}" for letter in "xy" for number in ["", *range(2, 9)]}


def test_on_a_narrow_page_columns_stand_below_one_another_without_overlap(recorded):
    _, run = recorded
    figure = measures([run, run])
    narrow, wide = figure.layout.meta["narrow"], figure.layout.meta["wide"]
    assert narrow.keys() == wide.keys()
    for key, value in wide.items():
        assert figure.layout[key] == value
    domains = sorted(value for key, value in narrow.items() if key.startswith("yaxis") and key.endswith("domain"))
    assert len(domains) == 8 and domains[0][0] >= 0 and domains[-1][1] <= 1
    assert all(below[1] < above[0] for below, above in itertools.pairwise(domains))


def test_names_are_escaped(record):
    hostile = '<a href="javascript:alert(1)">x</a>'
    run = record(nn.Sequential(OrderedDict({hostile: nn.Linear(2, 2)})), "<b>run", (2,), steps=2)
    figure = measures(run)
    assert all("<" not in trace.name for trace in figure.data)
    assert figure.layout.annotations[0].text == "&lt;b&gt;run"


def test_a_run_without_records_says_so(record):
    with pytest.raises(InputError, match="no records yet"):
        measures(record(nn.Linear(2, 2), shape=(2,), steps=0))
