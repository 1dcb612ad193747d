import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from phenoscope import stats
from phenoscope.core.errors import InputError


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_both_are_scipys_ties_included(pairs):
    a, b = np.array(pairs, dtype=float).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(stats.spearman(a, b)) and np.isnan(stats.kendall(a, b))
        return
    assert stats.spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic, abs=1e-12)
    assert stats.kendall(a, b) == pytest.approx(scipy_stats.kendalltau(a, b).statistic, abs=1e-12)


def test_ranks_do_not_change_under_monotone_maps():
    x = np.random.default_rng(0).normal(size=20)
    assert stats.spearman(x, np.exp(x)) == 1.0 and stats.kendall(x, -(x**3)) == -1.0


def test_labelled_arrays_are_ranked_along_a_dimension():
    generator = np.random.default_rng(0)
    a = xr.DataArray(generator.normal(size=(3, 8)), dims=("seed", "gain"), coords={"seed": [4, 5, 6]})
    b = xr.DataArray(generator.normal(size=(8, 3)), dims=("gain", "seed"), coords={"seed": [4, 5, 6]})
    found = stats.spearman(a, b, dim="gain")
    assert found.dims == ("seed",) and found.seed.values.tolist() == [4, 5, 6]
    assert float(found[1]) == pytest.approx(stats.spearman(a[1].values, b[:, 1].values))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="two lists of one length"):
        stats.spearman([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="NaN"):
        stats.kendall([1, np.nan], [1, 2])
    with pytest.raises(InputError, match="dim must be"):
        stats.spearman(xr.DataArray([1, 2], dims="x"), xr.DataArray([1, 2], dims="x"), dim="y")
    with pytest.raises(InputError, match="leave it out"):
        stats.spearman([1, 2], [1, 2], dim="x")
