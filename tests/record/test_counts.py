"""Two counts in one number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.record.counts import MISSING, dtype_for, pack, unpack


@pytest.mark.parametrize("channels,entries", [(1, 1), (5, 1), (1, 9), (4, 3), (7, 2)])
def test_every_possible_pair_has_its_own_number_and_none_is_left_out(channels, entries):
    pairs = [(n, m) for m in range(channels + 1) for n in range(m, m * entries + 1)]
    codes = pack(*np.array(pairs).T, np.array(entries))
    assert sorted(codes) == list(range(len(pairs)))
    changed, moved = unpack(codes.astype(np.uint32), entries)
    assert list(zip(changed.astype(int), moved.astype(int), strict=True)) == pairs


@given(channels=st.integers(1, 8192), entries=st.integers(1, 128), data=st.data())
def test_counts_come_back_from_32_bits_for_layers_of_any_usual_width(channels, entries, data):
    moved = data.draw(st.integers(0, channels))
    changed = data.draw(st.integers(moved, moved * entries))
    assert dtype_for(channels, entries) == np.uint32
    code = pack(np.array([changed]), np.array([moved]), np.array([entries])).astype(np.uint32)
    assert [float(v[0]) for v in unpack(code, entries)] == [changed, moved]


def test_very_wide_layers_take_64_bits_and_come_back():
    assert dtype_for(200_000, 400) == np.uint64
    changed, moved = np.array([80_000_000, 0, 199_999]), np.array([200_000, 0, 199_999])
    back = unpack(pack(changed, moved, np.array([400])), 400)
    np.testing.assert_array_equal(back[0], changed)
    np.testing.assert_array_equal(back[1], moved)


def test_a_missing_value_comes_back_as_nan():
    for dtype in (np.uint32, np.uint64):
        changed, moved = unpack(np.array([MISSING], np.uint64).astype(dtype), 9)
        assert np.isnan(changed).all() and np.isnan(moved).all()
