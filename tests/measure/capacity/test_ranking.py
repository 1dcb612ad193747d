import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phenoscope import measure
from phenoscope.core.errors import InputError

GRID = list(itertools.product((64, 128, 256), (1, 2, 3), (0.02, 0.1), range(4)))
AXES = {name: [row[place] for row in GRID] for place, name in enumerate(("width", "depth", "rate", "seed"))}
RNG = np.random.default_rng(0)
GAPS = RNG.normal(size=len(GRID))


def ranked(values, gaps=GAPS, axes=AXES, unscored=("seed",)):
    return measure.rank_complexity(values, gaps, axes, unscored=unscored)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(9)), st.permutations(range(9)))
def test_tau_is_scipys_where_nothing_ties(a, b):
    found = measure.rank_complexity(a, b, {"width": range(9)})
    np.testing.assert_allclose(found.tau, stats.kendalltau(a, b).statistic, atol=1e-12)
    np.testing.assert_allclose(found.Psi, found.tau)


def test_ties_count_zero_and_stay_in_the_denominator():
    found = measure.rank_complexity([1, 1, 2], [0.1, 0.2, 0.3], {"width": [1, 2, 3]})
    np.testing.assert_allclose(found.tau, 2 / 3)


def test_the_gap_itself_scores_one_its_opposite_minus_one_and_chance_nothing():
    found = ranked(np.stack([GAPS, -GAPS, RNG.normal(size=len(GRID))]))
    np.testing.assert_allclose(found.Psi[:2], [1, -1])
    np.testing.assert_allclose(found.psi[0], 1)
    np.testing.assert_allclose(found.information[:2], 1, atol=1e-9)
    assert abs(float(found.Psi[2])) < 0.25  # 72 independent networks
    assert float(found.information[2]) < 0.05


def test_a_measure_that_follows_one_axis_scores_on_that_axis_alone():
    """The trap: where label noise or width rules the gap, one overall tau rewards whatever follows it."""
    width = np.array(AXES["width"], dtype=float)
    gaps = width + 1e-3 * RNG.normal(size=len(width))
    found = ranked(width, gaps)
    assert found.tau.item() > 0.6
    np.testing.assert_allclose(found.psi.sel(axis="width"), 1)
    np.testing.assert_allclose(found.psi.sel(axis=["depth", "rate"]), 0)
    np.testing.assert_allclose(found.Psi, 1 / 3)
    np.testing.assert_allclose(found.information, 0, atol=1e-9)
    assert "width" in str(found.given.item())


def test_psi_of_an_axis_is_the_mean_over_its_groups():
    values = RNG.normal(size=len(GRID))
    found = ranked(values)
    groups = {}
    for row, value, gap in zip(GRID, values, GAPS, strict=True):
        groups.setdefault((row[1], row[2], row[3]), []).append((row[0], value, gap))
    taus = []
    for members in groups.values():
        assert len(members) == 3
        taus.append(stats.kendalltau([v for _, v, _ in members], [g for *_, g in members]).statistic)
    np.testing.assert_allclose(found.psi.sel(axis="width"), np.mean(taus))
    inside = found.group_tau[0][found.group_axis.values == "width"]
    np.testing.assert_allclose(sorted(inside.values), sorted(taus))
    assert found.sizes["group"] == 24 + 24 + 36  # 72 networks, by threes, threes and twos


def test_a_seed_shared_by_a_group_is_not_scored():
    assert ranked(GAPS).axis.values.tolist() == ["width", "depth", "rate"]
    assert "seed" in measure.rank_complexity(GAPS, GAPS, AXES).axis


def test_networks_without_a_value_are_left_out_for_that_measure_only():
    holed = GAPS.copy()
    holed[:3] = np.nan
    found = ranked(np.stack([holed, GAPS]))
    assert found.networks.values.tolist() == [69, 72]
    np.testing.assert_allclose(found.Psi, 1)
    nothing = ranked(np.full_like(GAPS, np.nan))
    assert nothing.Psi.isnull().all() and nothing.tau.isnull().all() and nothing.information.isnull().all()


def test_the_information_is_that_of_counts():
    """Against mutual_info_score of scikit-learn, cell by cell of the condition."""
    from sklearn.metrics import mutual_info_score

    values = GAPS + RNG.normal(size=len(GRID))
    first, second = np.nonzero(~np.eye(len(GRID), dtype=bool))
    v, g = np.sign(values[first] - values[second]), np.sign(GAPS[first] - GAPS[second])

    def share(cells):
        information = entropy = 0.0
        for cell in set(cells):
            inside = np.array([each == cell for each in cells])
            information += inside.mean() * mutual_info_score(v[inside], g[inside])
            entropy += inside.mean() * mutual_info_score(g[inside], g[inside])
        return information / entropy

    names = ("width", "depth")
    sets = [[], ["width"], ["depth"], ["width", "depth"]]
    shares = []
    for chosen in sets:
        keys = [tuple(AXES[name][place] for name in chosen) for place in range(len(GRID))]
        shares.append(share([(keys[i], keys[j]) for i, j in zip(first, second, strict=True)]))
    axes = {name: AXES[name] for name in names} | {
        "rest": [f"{rate} {seed}" for rate, seed in zip(AXES["rate"], AXES["seed"], strict=True)]
    }
    found = measure.rank_complexity(values, GAPS, axes, unscored=("rest",))
    np.testing.assert_allclose(found.information, min(shares), atol=1e-9)


def test_names_of_a_labeled_table_stay():
    table = xr.DataArray(np.stack([GAPS, -GAPS]), dims=("measure", "network"), coords={"measure": ["a", "b"]})
    assert ranked(table.transpose("network", "measure")).sel(measure="b").Psi == -1


def test_what_cannot_be_ranked_is_named():
    with pytest.raises(InputError, match="gap is NaN"):
        ranked(GAPS, np.where(np.arange(len(GAPS)) == 2, np.nan, GAPS))
    with pytest.raises(InputError, match="values of 'width'"):
        ranked(GAPS, axes={"width": [1, 2]}, unscored=())
    with pytest.raises(InputError, match="'deep'"):
        ranked(GAPS, unscored=("deep",))
    with pytest.raises(InputError, match="hyperparameter to score"):
        ranked(GAPS, axes={"seed": AXES["seed"]})
    with pytest.raises(InputError, match="shape"):
        ranked(GAPS[:4])
