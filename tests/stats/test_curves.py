import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.stats import turning_points


def prominence(curve, place):
    """By its definition, for heights as ratios."""
    sides = []
    for step in (-1, 1):
        lowest, at = curve[place], place + step
        while 0 <= at < len(curve) and curve[at] <= curve[place]:
            lowest, at = min(lowest, curve[at]), at + step
        sides.append(curve[place] / lowest)
    return min(sides)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=12, unique=True))
def test_peaks_are_those_of_the_definition(curve):
    expected = {
        place: prominence(curve, place)
        for place in range(1, len(curve) - 1)
        if curve[place - 1] < curve[place] > curve[place + 1] and prominence(curve, place) >= 1.15 * (1 + 1e-9)
    }
    found = {int(each.at): each for each in turning_points(curve) if each.kind == "peak"}
    assert found.keys() >= expected.keys()
    for place, wanted in expected.items():
        assert found[place].prominence.estimate == pytest.approx(wanted)
        assert found[place].value.estimate == pytest.approx(curve[place])
    assert all(each.prominence.estimate >= 1.15 * (1 - 1e-9) for each in found.values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=10, unique=True))
def test_valleys_are_peaks_of_the_curve_turned_over_and_the_two_alternate(curve):
    points, turned = turning_points(curve), turning_points(1 / np.array(curve))
    other = {"peak": "valley", "valley": "peak"}
    assert [(each.kind, each.at) for each in points] == [(other[each.kind], each.at) for each in turned]
    kinds = [each.kind for each in points]
    assert all(a != b for a, b in itertools.pairwise(kinds))


def test_a_planted_peak_is_found_with_intervals_that_cover_it():
    at = np.geomspace(1, 1000, 13)
    truth = 1 / at**0.3 * (1 + 3 * np.exp(-4 * np.log(at / at[7]) ** 2))
    rng = np.random.default_rng(0)
    noisy = truth * np.exp(0.3 * rng.normal(size=(40, 13)))
    peak = next(each for each in turning_points(noisy, at, generator=1) if each.kind == "peak")
    assert peak.at == at[7] and peak.place.low <= at[7] <= peak.place.high
    assert peak.value.low < truth[7] < peak.value.high
    wanted = prominence(list(truth), 7)
    assert 1.15 < peak.prominence.low < wanted * 1.2 and peak.prominence.high > wanted * 0.8
    again = next(each for each in turning_points(noisy, at, generator=1) if each.kind == "peak")
    assert again == peak


def test_noise_alone_makes_peaks_whose_interval_reaches_down_to_none():
    rng = np.random.default_rng(3)
    falling = np.geomspace(10, 1, 12) * np.exp(0.3 * rng.normal(size=(15, 12)))
    for each in turning_points(falling, prominence=1.001, generator=0):
        assert each.prominence.low < 1.05


def test_a_single_curve_says_nothing_of_its_spread():
    (peak,) = turning_points([1, 3, 2])
    assert peak.value == (pytest.approx(3), -np.inf, np.inf) and peak.kind == "peak"


def test_curves_that_pass_zero_have_differences():
    peak, valley = turning_points([-1, -0.2, -0.8, 0.1], ratio=False, prominence=0.3)
    assert (peak.at, valley.at) == (1.0, 2.0)
    assert peak.prominence.estimate == pytest.approx(0.6) and valley.prominence.estimate == pytest.approx(0.6)
    assert turning_points([-1, -0.2, -0.8, 0.1], ratio=False, prominence=0.7) == []


def test_ends_are_no_turning_points_and_a_plateau_turns_in_its_middle():
    assert turning_points([5, 4, 3, 2]) == []
    (peak,) = turning_points([1, 2, 2, 2, 1])
    assert peak.at == 2.0


def test_the_median_is_taken_unless_another_statistic_is_given():
    rows = np.array([[1, 1, 1], [1, 1, 1], [1, 100, 1.0]])
    assert turning_points(rows) == []
    assert len(turning_points(rows, statistic=np.mean)) == 1


def test_curves_that_are_none_are_refused():
    for curve, settings_, word in (
        ([], {}, "one place each"),
        ([1, 2, 3], {"at": [1, 2]}, "one place each"),
        ([1, 2, 3], {"at": [1, 3, 2]}, "ascend"),
        ([1, 0, 3], {}, "positive"),
        ([1, np.nan, 3], {"ratio": False}, "finite"),
        ([1, 2, 3], {"prominence": 0.9}, "a ratio at least 1"),
        ([1, 2, 3], {"level": 1.0}, "level"),
    ):
        with pytest.raises(InputError, match=word):
            turning_points(curve, **settings_)
