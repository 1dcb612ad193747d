"""The measures as pure functions, against the equations written out in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.record.reference import convolution_filters, reference, transposed_filters

from phenoscope.core.errors import InputError
from phenoscope.record import evolution


def check(e, before, after, tau, filters):
    distance, changed, idle = reference(before, after, tau, filters)
    size = len(filters[0]) * len(filters[0][0])
    np.testing.assert_allclose(e.distance, distance, rtol=1e-6)  # only the order of float64 sums differs
    np.testing.assert_allclose(e.distance_per_weight, distance / size, rtol=1e-6)
    np.testing.assert_allclose(e.changed, changed, atol=1e-12)
    np.testing.assert_allclose(e.idle, idle, atol=1e-12)
    for value, mean in [(e.layer_distance, distance), (e.layer_changed, changed), (e.layer_idle, idle)]:
        np.testing.assert_allclose(value, mean.mean(), rtol=1e-6, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    tau=st.sampled_from([0.0, 1e-3, 1e3, float("inf")]),
    exponent=st.integers(-15, 15),
    step=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_convolutions_and_linear_layers_of_any_rank_dtype_magnitude_and_stride(shape, dtype, tau, exponent, step, seed):
    if dtype == torch.float16:
        exponent = max(-4, min(3, exponent))
    g = torch.Generator().manual_seed(seed)
    wide = [*shape[:-1], shape[-1] * step]
    before = (torch.randn(wide, generator=g, dtype=torch.float64) * 10.0**exponent).to(dtype)[..., ::step]
    moves = (
        torch.randn(shape, generator=g, dtype=torch.float64) * 10.0**exponent * (torch.rand(shape, generator=g) < 0.4)
    )
    after = (before.double() + moves).to(dtype)
    check(evolution(before, after, tau), before, after, tau, convolution_filters(shape))


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    out=st.integers(1, 4),
    kernel=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 99),
)
def test_transposed_convolutions_with_groups(groups, inputs, out, kernel, seed):
    g = torch.Generator().manual_seed(seed)
    before = torch.randn(groups * inputs, out, *kernel, generator=g)
    after = before + torch.randn(before.shape, generator=g) * (torch.rand(before.shape, generator=g) < 0.3)
    e = evolution(before, after, 0.5, filters=1, channels=0, groups=groups)
    check(e, before, after, 0.5, transposed_filters(before.shape, groups))


def test_groups_change_nothing_where_the_weight_already_holds_one_group_a_filter():
    before, after = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    a, b = evolution(before, after, 0.1), evolution(before, after, 0.1, groups=2)
    assert torch.equal(a.idle, b.idle) and torch.equal(a.distance, b.distance)


def test_channels_last_weights_give_the_same_numbers():
    before, after = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3)
    last = evolution(before.to(memory_format=torch.channels_last), after.to(memory_format=torch.channels_last), 0.5)
    plain = evolution(before, after, 0.5)
    assert torch.equal(last.idle, plain.idle) and torch.equal(last.changed, plain.changed)


def test_identical_snapshots_have_moved_nowhere():
    weight = torch.randn(3, 4, 3, 3)
    e = evolution(weight, weight.clone(), 0.0)
    assert not e.distance.any() and not e.changed.any() and (e.idle == 1).all()


def test_one_entry_moved_by_twice_the_threshold_is_one_entry_and_one_channel():
    before = torch.zeros(3, 4, 3, 3, dtype=torch.float64)
    after = before.clone()
    after[1, 2, 0, 1] = 2e-4
    e = evolution(before, after, 1e-4)
    assert e.changed.tolist() == [0, 1 / 36, 0] and e.idle.tolist() == [1, 3 / 4, 1]


def test_the_threshold_is_for_each_entry_and_not_for_the_sum_of_a_channel():
    before = torch.zeros(1, 2, 3, 3)
    e = evolution(before, before + 0.9, 1.0)
    assert e.idle.tolist() == [1.0] and e.changed.tolist() == [0.0]


def test_the_distance_is_a_sum_over_entries_and_a_mean_over_filters():
    before, after = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    e = evolution(before, after, 0.5)
    assert (
        e.distance.tolist() == [12.0, 12.0]
        and e.layer_distance == 12.0
        and e.distance_per_weight.tolist() == [1.0, 1.0]
    )


def test_nan_counts_as_changed_so_that_a_broken_filter_never_looks_idle():
    before, after = torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 1, 1)
    after[0, 0] = float("nan")
    e = evolution(before, after, 0.1)
    assert e.changed.tolist() == [0.5, 0.0] and e.idle.tolist() == [0.5, 1.0] and torch.isnan(e.distance[0])


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: evolution(torch.zeros(2, 2), torch.zeros(2, 3), 1.0), "differ in shape"),
        (lambda: evolution(torch.zeros(2), torch.zeros(2), 1.0), "two or more dimensions"),
        (lambda: evolution(torch.zeros(2, 2).int(), torch.zeros(2, 2).int(), 1.0), "int32"),
        (lambda: evolution(torch.zeros(2, 2), torch.zeros(2, 2), -1.0), "at least 0"),
        (lambda: evolution(torch.zeros(2, 2), torch.zeros(2, 2), float("nan")), "at least 0"),
        (lambda: evolution(torch.zeros(2, 2), torch.zeros(2, 2), 1.0, filters=1), "two different axes"),
        (lambda: evolution(torch.zeros(3, 2), torch.zeros(3, 2), 1.0, filters=1, channels=0, groups=2), "2 groups"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(call, message):
    with pytest.raises(InputError, match=message):
        call()
