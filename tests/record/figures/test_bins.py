import numpy as np

from phenoscope.record.figures.bins import bin_means, edges


def test_bins_cover_every_item_once_and_differ_in_size_by_one_at_most():
    for count in (1, 2, 7, 400, 401, 1999):
        starts = edges(count, 400)
        sizes = np.diff([*starts, count])
        assert len(starts) == min(count, 400) and sizes.sum() == count
        assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


def test_bin_means_are_weighted_means_of_what_is_there():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0], [7.0, 9.0]])
    means = bin_means(values, np.array([0, 2]), weights=np.array([1, 3, 1, 1]))
    # sums of few small integers: exact
    np.testing.assert_array_equal(means, [[2.5, np.nan], [7.0, 7.0]])
    np.testing.assert_array_equal(bin_means(values.T, np.array([0, 2]), axis=1), [[2.0, 7.0], [np.nan, 7.0]])
