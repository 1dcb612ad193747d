"""Every compiled pass against the NumPy reference, over layer kinds, memory layouts and dtypes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.record.reference import convolution_filters, head_filters, reference, transposed_filters
from torch import nn

from phenoscope.record.evolution import compare
from phenoscope.record.layers import find_layers
from phenoscope.record.passes.cpu import CpuPass
from phenoscope.record.passes.layout import layout
from phenoscope.record.passes.meter import Meter, numbered
from phenoscope.record.passes.plain import PlainPass
from phenoscope.record.passes.watched import Watched

DEVICES = ["cpu", *[pytest.param("cuda", marks=pytest.mark.cuda)] * torch.cuda.is_available()]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# layer -> its filters as lists of channels of entries, by the definition of the layer
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(5, 3, 7), lambda w: {"": convolution_filters(w.shape)}),
    "conv2d": (lambda: nn.Conv2d(4, 5, 3), lambda w: {"": convolution_filters(w.shape)}),
    "conv2d of 1x1": (lambda: nn.Conv2d(70, 6, 1), lambda w: {"": convolution_filters(w.shape)}),
    "conv2d of 7x7": (lambda: nn.Conv2d(3, 4, 7), lambda w: {"": convolution_filters(w.shape)}),
    "conv3d": (lambda: nn.Conv3d(2, 3, (2, 1, 3)), lambda w: {"": convolution_filters(w.shape)}),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4), lambda w: {"": convolution_filters(w.shape)}),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), lambda w: {"": convolution_filters(w.shape)}),
    "transposed": (lambda: nn.ConvTranspose2d(6, 4, 3), lambda w: {"": transposed_filters(w.shape, 1)}),
    "transposed of 1": (lambda: nn.ConvTranspose1d(6, 4, 1), lambda w: {"": transposed_filters(w.shape, 1)}),
    "transposed, grouped": (
        lambda: nn.ConvTranspose2d(6, 8, 2, groups=2),
        lambda w: {"": transposed_filters(w.shape, 2)},
    ),
    "transposed, depthwise": (
        lambda: nn.ConvTranspose1d(5, 5, 4, groups=5),
        lambda w: {"": transposed_filters(w.shape, 5)},
    ),
    "channels last": (
        lambda: nn.Conv2d(6, 5, 3).to(memory_format=torch.channels_last),
        lambda w: {"": convolution_filters(w.shape)},
    ),
    "channels last 3d": (
        lambda: nn.Conv3d(4, 3, 2).to(memory_format=torch.channels_last_3d),
        lambda w: {"": convolution_filters(w.shape)},
    ),
    "linear": (lambda: nn.Linear(300, 4), lambda w: {"": convolution_filters(w.shape)}),
    "linear of one unit": (lambda: nn.Linear(1, 1), lambda w: {"": convolution_filters(w.shape)}),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2),
        lambda w: {part: head_filters(w.shape, i * 8, i * 8 + 8, 2) for i, part in enumerate("qkv")},
    ),
}


def watch(module, tau):
    return numbered(Watched(each.layer, each.weight, tau) for each in find_layers(module)[0])


def wiggle(module, scale, seed):
    """Move about a third of all entries."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=g, dtype=torch.float64) * (torch.rand(p.shape, generator=g) < 0.3)
            p.add_((noise * scale).to(p))


def check(watched, before, numbers, filters_of, rtol=1e-6):
    for w in watched:
        part = w.layer.name.rpartition(".")[2] if w.layer.rows else ""
        if w.layer.name.endswith("out_proj"):
            filters = convolution_filters(w.layer.shape)
        else:
            filters = filters_of(before[id(w.weight)])[w.layer.name if part == "" and w.layer.rows else part]
        distance, changed, idle = reference(before[id(w.weight)], w.weight, w.threshold, filters)
        place, (channels, entries) = slice(w.start, w.start + len(w)), w.layer.entries
        np.testing.assert_allclose(numbers.distance[place], distance, rtol=rtol)
        np.testing.assert_array_equal(numbers.changed[place], np.rint(changed * channels * entries))
        np.testing.assert_array_equal(numbers.moved[place], np.rint((1 - idle) * channels))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_pass_gives_the_numbers_of_the_equations_and_updates_its_copy(kind, dtype, device):
    make, filters_of = LAYERS[kind]
    torch.manual_seed(0)
    module = nn.ModuleDict({"layer": make()}).to(device, dtype)
    watched = watch(module, 0.01)
    meter = Meter(watched)
    for turn in range(3):
        before = {id(w.weight): w.weight.detach().clone() for w in watched}
        wiggle(module, 0.02, turn)
        numbers = meter.measure()()
        # 1e-6: the differences are the same float32 numbers, the sums differ only in float64 rounding
        check(watched, before, numbers, filters_of)
    still = meter.measure()()
    assert not still.distance.any() and not still.changed.any() and not still.moved.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("tau", [0.0, 1e-15, 1e15, float("inf")])
def test_thresholds_and_magnitudes_at_both_ends(scale, tau, device):
    module = nn.ModuleDict({"layer": nn.Conv2d(4, 5, 3)}).to(device)
    with torch.no_grad():
        module["layer"].weight.mul_(scale)
    watched = watch(module, tau)
    meter = Meter(watched)
    before = {id(w.weight): w.weight.detach().clone() for w in watched}
    wiggle(module, 0.1 * scale, 1)
    check(watched, before, meter.measure()(), lambda w: {"": convolution_filters(w.shape)})


@pytest.mark.parametrize("device", DEVICES)
def test_an_entry_exactly_at_the_threshold_has_not_moved_and_one_above_has(device):
    module = nn.ModuleDict({"layer": nn.Linear(2, 1, bias=False)}).to(device)
    with torch.no_grad():
        module["layer"].weight.zero_()
    step = float(torch.tensor(2e-4))  # a float32 above or below the double 2e-4: it is compared as the number it is
    for tau, expected in [(step, 0), (np.nextafter(step, 0), 1), (np.nextafter(step, 1), 0)]:
        meter = Meter(watch(module, tau))
        with torch.no_grad():
            module["layer"].weight[0, 0] += step
        assert meter.measure()().changed.tolist() == [expected]
        with torch.no_grad():
            module["layer"].weight.zero_()


@pytest.mark.parametrize("device", DEVICES)
def test_nan_counts_as_moved_and_spoils_only_its_own_filter(device):
    module = nn.ModuleDict({"layer": nn.Conv2d(2, 3, 3)}).to(device)
    meter = Meter(watch(module, 0.1))
    with torch.no_grad():
        module["layer"].weight[1, 0, 0, 0] = float("nan")
    numbers = meter.measure()()
    assert np.isnan(numbers.distance).tolist() == [False, True, False]
    assert numbers.changed.tolist() == [0, 1, 0] and numbers.moved.tolist() == [0, 1, 0]


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 9),
    channels=st.integers(1, 70),
    kernel=st.lists(st.integers(1, 4), max_size=3),
    last=st.booleans(),
    tau=st.sampled_from([0.0, 0.01, 10.0]),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
)
def test_the_compiled_pass_agrees_with_the_definition_for_any_shape(out, channels, kernel, last, tau, seed, threads):
    weight = torch.randn(out, channels, *kernel, generator=torch.Generator().manual_seed(seed))
    if last and len(kernel) == 2:
        weight = weight.to(memory_format=torch.channels_last)
    module = nn.ModuleDict({"layer": nn.Linear(1, 1)})
    module["layer"].weight = nn.Parameter(weight)
    watched = watch(module, tau)
    keep, n = torch.get_num_threads(), threads
    torch.set_num_threads(n)
    try:
        compiled, plain = CpuPass(watched), PlainPass(watched)
    finally:
        torch.set_num_threads(keep)
    wiggle(module, 0.02, seed)
    a, b = compiled.measure()(), plain.measure()()
    np.testing.assert_allclose(a.distance, b.distance, rtol=1e-12)  # float64 sums in another order
    np.testing.assert_array_equal(a.changed, b.changed)
    np.testing.assert_array_equal(a.moved, b.moved)


def test_threads_share_the_work_without_leaving_a_filter_out():
    torch.set_num_threads(2)
    module = nn.Sequential(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 60, 3), nn.Linear(500, 90), nn.Linear(90, 300))
    watched = watch(module, 0.01)
    compiled, plain = CpuPass(watched), PlainPass(watched)
    assert len(compiled._shares) == 2
    wiggle(module, 0.02, 3)
    for a, b in zip(compiled.measure()(), plain.measure()(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_weights_that_lie_irregularly_in_memory_are_measured_all_the_same():
    base = torch.randn(6, 8, 5, 5)
    module = nn.ModuleDict({"layer": nn.Conv2d(4, 6, 3)})
    module["layer"].weight = nn.Parameter(base[:, ::2, 1:4, ::2])
    watched = watch(module, 0.01)
    assert not module["layer"].weight.is_contiguous() and layout(watched[0].layer, watched[0].weight) is None
    before = {id(w.weight): w.weight.detach().clone() for w in watched}
    meter = Meter(watched)
    wiggle(module, 0.02, 1)
    check(watched, before, meter.measure()(), lambda w: {"": convolution_filters(w.shape)})


@pytest.mark.parametrize("device", DEVICES)
def test_a_weight_whose_memory_is_swapped_is_followed(device):
    module = nn.ModuleDict({"layer": nn.Conv2d(2, 3, 3)}).to(device)
    meter = Meter(watch(module, 0.1))
    after = module["layer"].weight.detach() + 1.0
    module["layer"].weight.data = after.clone()
    numbers = meter.measure()()
    np.testing.assert_allclose(numbers.distance, [18.0] * 3, rtol=1e-6)
    assert numbers.moved.tolist() == [2, 2, 2]


def test_mixed_dtypes_come_back_in_the_order_of_the_layers():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 2).double(), nn.Linear(4, 5).bfloat16(), nn.Linear(4, 1))
    watched = watch(module, 0.0)
    before = [w.layer.blocks(w.weight.detach().clone()) for w in watched]
    meter = Meter(watched)
    wiggle(module, 1.0, 0)
    numbers = meter.measure()()
    for w, b in zip(watched, before, strict=True):
        distance, changed, _ = compare(b, w.layer.blocks(w.weight.detach()), 0.0)
        np.testing.assert_allclose(numbers.distance[w.start : w.start + len(w)], distance, rtol=1e-12)
        np.testing.assert_array_equal(numbers.changed[w.start : w.start + len(w)], changed)
