"""When layers settle: planted runs whose answer is known, noise, gaps, and the schedule of freezing."""

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import freezing, settling


@pytest.fixture
def planted(tmp_path):
    """planted([stop, ...], loud={layer: updates}, ...) -> a run in which layer i moves up to update stop[i]."""

    def make(stops, *, updates=200, every=10, loud=None, gap=None, name="run", model=None, rate=None):
        model = model or nn.Sequential(*(nn.Linear(4, 6) for _ in stops))
        weights = [module.weight for module in model if hasattr(module, "weight")]
        settings = {"every": every, "threshold": 0.05}
        recorder = Recorder(model, tmp_path / name, **settings)
        for update in range(1, updates + 1):
            with torch.no_grad():
                for i, weight in enumerate(weights):
                    if update <= stops[i] or update in (loud or {}).get(i, ()):
                        weight.add_(0.1)
            recorder.step(**({} if rate is None else {"lr": rate(update)}))
            if update == gap:
                recorder.close()
                recorder = Recorder(model, tmp_path / name, resume=True, **settings)
        recorder.close()
        return open_run(tmp_path / name)

    return make


def test_a_layer_settles_at_its_last_update_that_moved(planted):
    found = settling(planted([50, 0, 120, 200, 180]))
    # exact: every is a divisor of the planted steps; the last moves to the end, the one before too near to it
    np.testing.assert_array_equal(found["settled"], [50, 0, 120, np.nan, np.nan])
    np.testing.assert_array_equal(found["below"], [50, 50, 120, np.nan, np.nan])
    np.testing.assert_array_equal(found["after"], [0, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found["before"][[0, 2, 3]], [1, 1, 1])
    assert found.attrs == {"threshold": 0.05, "window": 5, "end": 200.0}


def test_a_step_between_records_is_rounded_up_to_the_record_that_saw_the_last_movement(planted):
    assert settling(planted([53]))["settled"].item() == 60


@pytest.mark.parametrize("window,expected", [(5, 50), (3, 130), (1, 130)])
def test_two_loud_records_in_a_row_are_forgiven_by_a_median_of_five_and_not_of_three(planted, window, expected):
    run = planted([50], loud={0: [115, 125]})
    assert settling(run, window=window)["settled"].item() == expected


def test_a_layer_that_wakes_up_again_settles_only_after_that(planted):
    assert settling(planted([50], loud={0: range(100, 140)}))["settled"].item() == 140  # 139 lies in the record of 140


def test_never_under_the_threshold_is_not_settled_and_the_threshold_counts(tmp_path):
    model = nn.Linear(8, 8)
    with Recorder(model, tmp_path / "run", every=1, threshold=0.05) as recorder, torch.no_grad():
        for _ in range(30):
            model.weight[0] += 0.1  # an eighth of the entries, always
            recorder.step()
    run = open_run(tmp_path / "run")
    assert np.isnan(settling(run, threshold=0.05)["settled"].item())
    assert settling(run, threshold=0.13)["settled"].item() == 0
    assert np.isnan(settling(run, threshold=0.125)["settled"].item())  # under means less than


def test_random_records_settle_where_a_plain_loop_says(tmp_path, planted):
    """Against the definition written out again, record by record, on 40 noisy layers."""
    rng = np.random.default_rng(0)
    loud = {i: np.flatnonzero(rng.random(200) < rng.choice([0.0, 0.02, 0.05])) + 1 for i in range(40)}
    run = planted(rng.integers(0, 200, 40), loud=loud)
    steps, changed = [0, *run.means["step"].values], run.means["changed"].values

    def by_hand(values, window, threshold):
        half, last = window // 2, -1
        for t in range(len(values)):
            if (
                sorted(values[max(0, t - half) : t + half + 1])
                and np.median(values[max(0, t - half) : t + half + 1]) >= threshold
            ):
                last = t
        return steps[last + 1] if len(values) - (last + 1) >= window else np.nan

    for window in (1, 3, 5, 7):
        want = [by_hand(changed[:, i], window, 0.05) for i in range(40)]
        got = settling(run, window=window)["settled"]
        np.testing.assert_array_equal(got, want)
        assert 0 < np.isfinite(want).sum() < 40 or window == 7


def test_a_gap_is_no_evidence_and_settling_inside_it_is_dated_to_its_end(planted):
    quiet = settling(planted([50], gap=100))
    assert quiet["settled"].item() == 50
    run = planted([100], gap=100, name="at")
    assert run.means["gap"].values.sum() == 1 and run.means["step"].values[run.means["gap"].values] == [110]
    assert settling(run)["settled"].item() == 110
    assert settling(run)["after"].item() == 0


def test_the_share_of_the_learning_rate_at_settling_is_told(planted):
    found = settling(planted([100, 0], rate=lambda update: 0.1 if update <= 80 else 0.01))
    np.testing.assert_allclose(found["rate"], [0.1, 1.0])
    assert np.isnan(settling(planted([100], name="none"))["rate"].item())


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.5}, {"window": 4}, {"window": 0}])
def test_bad_settings_are_refused(planted, options):
    with pytest.raises(InputError, match="must be"):
        settling(planted([0]), **options)


def test_too_few_records_are_refused(planted):
    with pytest.raises(InputError, match="2 records, fewer than window=5"):
        settling(planted([0], updates=20))


def test_the_schedule_freezes_weight_and_bias_in_order_or_each_alone(planted):
    run = planted([50, 0, 120, 200])
    assert freezing(run) == {50: ["0.weight", "1.weight", "0.bias", "1.bias"], 120: ["2.weight", "2.bias"]}
    assert freezing(run, in_order=False) == {
        0: ["1.weight", "1.bias"],
        50: ["0.weight", "0.bias"],
        120: ["2.weight", "2.bias"],
    }
    with pytest.raises(InputError, match="other layers"):
        freezing(run, settling(run).isel(layer=[0, 1]))


def test_a_shared_weight_freezes_with_its_last_part_and_not_if_a_part_was_not_recorded(tmp_path):
    for name, layers in [("whole", None), ("part", ["q", "k"])]:
        model = nn.MultiheadAttention(4, 2)
        with Recorder(model, tmp_path / name, every=10, threshold=0.05, layers=layers) as recorder:
            for update in range(1, 101):
                with torch.no_grad():
                    for row, stop in [(0, 20), (4, 40), (8, 0)]:
                        if update <= stop:
                            model.in_proj_weight[row : row + 4].add_(0.1)
                recorder.step()
    assert freezing(open_run(tmp_path / "whole"), in_order=False) == {
        0: ["out_proj.weight", "out_proj.bias"],
        40: ["in_proj_weight", "in_proj_bias"],
    }
    assert freezing(open_run(tmp_path / "part"), in_order=False) == {}


def test_a_frozen_schedule_leaves_the_frozen_weights_where_they_were(planted, tmp_path):
    schedule = freezing(planted([50, 200]))
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    parameters = dict(model.named_parameters())
    for step in range(1, 61):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        for name in schedule.get(step, ()):
            parameters[name].requires_grad_(False).grad = None
            frozen = parameters["0.weight"].clone()
    assert torch.equal(frozen, parameters["0.weight"]) and list(schedule) == [50]
