"""Two runs of one architecture, compared: planted differences, what they share, and what cannot be compared."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import differences, figures, settling


def train(path, *, stops=(10, 40), updates=40, seed=0, every=1, threshold=0.05, scale=1.0, sizes=(4, 6, 5), **settings):
    """Random walks of the layers of a small network from one start, layer i up to update stops[i]."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))
    speed = torch.linspace(0.5, 2, 6)[: sizes[1], None] * scale  # of the first layer's filters
    generator = torch.Generator().manual_seed(seed)
    with Recorder(model, path, every=every, threshold=threshold, **settings) as recorder, torch.no_grad():
        for update in range(1, updates + 1):
            for i, layer in enumerate(model):
                move = 0.1 * torch.randn(layer.weight.shape, generator=generator)
                layer.weight.add_(move * (update <= stops[i]) * (speed if i == 0 else 1))
            recorder.step()
    return open_run(path)


def test_a_run_and_itself_differ_in_nothing(tmp_path):
    run = train(tmp_path / "a")
    found = differences(run, run)
    for name, values in found.data_vars.items():
        if "run" in values.dims:
            np.testing.assert_array_equal(values[0], values[1], err_msg=name)
    np.testing.assert_allclose(found["likeness"], 1)
    np.testing.assert_array_equal(found["apart"], 0)
    assert found.attrs["remarks"] == [] and found.attrs["until"] == 40


def test_planted_differences_are_found_where_they_are(tmp_path):
    a, b = train(tmp_path / "a"), train(tmp_path / "b", stops=(30, 40), seed=1)
    found = differences(a, b)
    np.testing.assert_array_equal(found["settled"], [[10, np.nan], [30, np.nan]])
    ratio = found["changed"][1] / found["changed"][0]
    assert ratio[0] == pytest.approx(3, rel=0.1) and ratio[1] == pytest.approx(1, rel=0.1)  # 30 of 40 updates, not 10
    assert found["likeness"][0] > 0.8  # the planted speeds of the filters; the second layer has none
    for i, name in enumerate(found["layer"].values):
        one, other = (run.final()[f"{name}.weight"].double() for run in (a, b))
        want = (one - other).norm() / (one.norm() * other.norm()).sqrt()
        assert found["apart"][i].item() == pytest.approx(want.item(), rel=1e-12)
        means = [run.average(name)["distance"] for run in (a, b)]
        assert found["likeness"][i].item() == pytest.approx(spearmanr(*means).statistic)
    np.testing.assert_array_equal(found["changed"][0], a.means["changed"].mean("step"))


def test_means_are_over_the_steps_that_both_runs_have(tmp_path):
    a, b = train(tmp_path / "a", updates=40), train(tmp_path / "b", updates=20)
    found = differences(a, b)
    np.testing.assert_array_equal(found["changed"][0], found["changed"][1])  # the same walk as far as it goes
    assert found.attrs["until"] == 20 and "end at steps 40 and 20" in found.attrs["remarks"][0]


def test_what_makes_runs_less_comparable_is_said(tmp_path):
    a = train(tmp_path / "a")
    b = train(tmp_path / "b", every=2, threshold=0.1, layers="0", final=False, updates=8)
    found = differences(a, b)
    said = " ".join(found.attrs["remarks"])
    for part in ("1 layers are only in a: 1.", "thresholds differ", "every 1 updates, the other every 2", "too few"):
        assert part in said
    assert list(found["layer"].values) == ["0"] and np.isnan(found["apart"]).all()
    assert np.isfinite(settling(a)["settled"][0]) and np.isnan(found["settled"][1]).all()


def test_runs_of_other_architectures_are_refused(tmp_path):
    a, b = train(tmp_path / "a"), train(tmp_path / "b", sizes=(4, 3, 5))
    with pytest.raises(InputError, match=r"'0' has shape \(6, 4\) in .* and \(3, 4\)"):
        differences(a, b)
    with Recorder(nn.ModuleDict({"x": nn.Linear(2, 2)}), tmp_path / "c", threshold=0.1):
        pass
    with pytest.raises(InputError, match="no layer in common"):
        differences(a, open_run(tmp_path / "c"))
    with Recorder(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)), tmp_path / "d", threshold=0.1):
        pass
    with pytest.raises(InputError, match="no records yet"):
        differences(a, open_run(tmp_path / "d"))


def test_the_figure_has_a_dot_for_each_run_and_layer_in_three_panels(tmp_path):
    found = differences(train(tmp_path / "a"), train(tmp_path / "b", seed=1))
    data = figures.differences(found, ["a<b", "b"]).data
    assert len(data) == 9 and data[1].name == "a&lt;b"
    for panel, key in enumerate(["changed", "distance_per_weight", "settled"]):
        for run in (0, 1):
            np.testing.assert_array_equal(data[3 * panel + 1 + run].x, found[key][run])
