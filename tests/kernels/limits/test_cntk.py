import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope import kernels
from phenoscope.core.errors import InputError


def images(n=3, channels=2, height=4, width=4, seed=0):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()


def by_loops(x, y, depth, q, pooled, circular):
    """The recursion over all pairs of pixels, entry by entry, as it is written down."""
    (_, height, width), reach = x.shape, q // 2
    pixels = list(itertools.product(range(height), range(width)))

    def at(a, i, j, i2, j2):
        if circular:
            return a[i % height, j % width, i2 % height, j2 % width]
        inside = 0 <= i < height and 0 <= i2 < height and 0 <= j < width and 0 <= j2 < width
        return a[i, j, i2, j2] if inside else 0.0

    def patches(a):
        out = np.zeros_like(a)
        for (i, j), (i2, j2) in itertools.product(pixels, pixels):
            around = itertools.product(range(-reach, reach + 1), repeat=2)
            out[i, j, i2, j2] = sum(at(a, i + s, j + t, i2 + s, j2 + t) for s, t in around)
        return out

    def arccosine(kxx, kxy, kyy):
        k, kd = np.zeros_like(kxy), np.zeros_like(kxy)
        for (i, j), (i2, j2) in itertools.product(pixels, pixels):
            root = np.sqrt(kxx[i, j, i, j] * kyy[i2, j2, i2, j2])
            if root > 0:
                angle = np.arccos(np.clip(kxy[i, j, i2, j2] / root, -1, 1))
                k[i, j, i2, j2] = 2 / q**2 * root * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
                kd[i, j, i2, j2] = 2 / q**2 * (np.pi - angle) / (2 * np.pi)
        return k, kd

    sigma = {
        name: patches(np.einsum("cij,ckl->ijkl", a, b))
        for name, a, b in (("xx", x, x), ("xy", x, y), ("yy", y, y))
    }  # fmt: skip
    theta = sigma["xy"]
    for layer in range(depth):
        k, kd = arccosine(sigma["xx"], sigma["xy"], sigma["yy"])
        theta = kd * theta + k
        if layer < depth - 1:
            theta = patches(theta)
        sigma = {
            "xx": patches(arccosine(sigma["xx"], sigma["xx"], sigma["xx"])[0]),
            "xy": patches(k),
            "yy": patches(arccosine(sigma["yy"], sigma["yy"], sigma["yy"])[0]),
        }
    return theta.mean() if pooled else sum(theta[i, j, i, j] for i, j in pixels)


SETTINGS = [(pooling, padding) for pooling in ("gap", "flatten") for padding in ("zero", "circular")]


@pytest.mark.parametrize("method", ["torch", "compiled"])
@pytest.mark.parametrize(("pooling", "padding"), SETTINGS)
def test_the_kernel_is_the_recursion_written_out_entry_by_entry(pooling, padding, method):
    x, y = images(2, 2, 4, 3), images(1, 2, 4, 3, seed=1)
    y[0, :, :2, :2] = 0.0
    found = kernels.cntk(x, y, depth=3, pooling=pooling, padding=padding, method=method)
    for row in range(2):
        value = by_loops(x[row].numpy(), y[0].numpy(), 3, 3, pooling == "gap", padding == "circular")
        assert found[row, 0].item() == pytest.approx(value, rel=1e-11)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(1, 4),
    st.sampled_from(SETTINGS), st.integers(0, 99),
)  # fmt: skip
def test_both_methods_agree_on_images_of_any_size(height, width, channels, q, depth, setting, seed):
    pooling, padding = setting
    if padding == "circular" and q > min(height, width):
        return
    x, y = images(3, channels, height, width, seed), images(20, channels, height, width, seed + 1)
    y[0], y[1] = x[0], 0.0
    same = dict(depth=depth, filter=q, pooling=pooling, padding=padding)
    plain = kernels.cntk(x, y, method="torch", **same)
    within = 1e-10 * plain.abs().max()  # of double precision, whatever the order of the sums
    assert (kernels.cntk(x, y, method="compiled", **same) - plain).abs().max() <= within
    # a correlation off by 1e-7 from 1 is worth 1e-4 of its E f'f'
    lower = kernels.cntk(x, y, method="compiled", dtype=torch.float32, **same)
    assert (lower - plain).abs().max() <= 1e-4 * plain.abs().max()


@pytest.mark.parametrize("method", ["torch", "compiled"])
def test_the_symmetric_half_chunks_and_threads_change_nothing(method):
    x = images(19)
    torch.set_num_threads(2)
    half = kernels.cntk(x, method=method)
    assert torch.equal(half, half.T)
    assert torch.equal(half, kernels.cntk(x, method=method))
    torch.testing.assert_close(half, kernels.cntk(x, x, method=method), rtol=1e-12, atol=0)
    torch.testing.assert_close(half, kernels.cntk(x, chunk=5, method=method), rtol=1e-12, atol=0)
    torch.testing.assert_close(half[2:5], kernels.cntk(x[2:5], x, method=method), rtol=1e-12, atol=0)


@pytest.mark.parametrize("pooling", ["gap", "flatten"])
def test_of_single_pixels_it_is_the_fully_connected_networks_kernel(pooling):
    x, y = images(5, 6, 1, 1), images(4, 6, 1, 1, seed=1)
    # that one has c_s = 2 at its first layer too, and divides by the number of features
    dense = kernels.mlp_kernels(x, y, depth=3, act="relu", sigma_w2=2.0).ntk * 6 / 2
    found = kernels.cntk(x, y, depth=3, filter=1, pooling=pooling)
    torch.testing.assert_close(found, dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_rolling_either_image_leaves_the_pooled_kernel_as_it_is_with_circular_padding(dtype, within):
    x, y = images(3, 1, 6, 5), images(4, 1, 6, 5, seed=1)
    settings_ = dict(padding="circular", dtype=dtype)
    still = kernels.cntk(x, y, **settings_)
    moved = kernels.cntk(x.roll((2, 3), (2, 3)), y.roll((-1, 2), (2, 3)), **settings_)
    torch.testing.assert_close(moved, still, rtol=within, atol=0)


def test_with_zero_padding_or_without_pooling_it_is_not_invariant():
    x = images(3, 1, 6, 6)
    for settings_ in (dict(padding="zero"), dict(padding="circular", pooling="flatten")):
        still, moved = kernels.cntk(x, **settings_), kernels.cntk(x, x.roll((2, 3), (2, 3)), **settings_)
        assert ((moved - still).abs() / still).max() > 1e-2


def test_pooling_is_over_all_pairs_of_pixels_and_not_over_equal_ones():
    x = images(4, 1, 5, 5)
    pooled, flattened = kernels.cntk(x), kernels.cntk(x, pooling="flatten")
    assert ((pooled - flattened / 25) / pooled).abs().min() > 1e-2


@pytest.mark.parametrize(("pooling", "padding"), SETTINGS)
def test_the_kernel_is_positive_definite_and_scales_as_the_square(pooling, padding):
    x = images(12, 1, 4, 4)
    found = kernels.cntk(x, pooling=pooling, padding=padding)
    assert torch.linalg.eigvalsh(found)[0] > 0
    scaled = kernels.cntk(1000 * x, pooling=pooling, padding=padding, dtype=torch.float32)
    torch.testing.assert_close(scaled.double(), 1e6 * found, rtol=1e-4, atol=0)


def test_progress_counts_pairs():
    for method in ("torch", "compiled"):
        seen = []
        kernels.cntk(
            images(9), method=method, chunk=8, progress=lambda done, total, seen=seen: seen.append((done, total))
        )
        assert seen[-1] == (45, 45) and seen == sorted(seen)


def test_no_images_and_one_image():
    assert kernels.cntk(images(0)).shape == (0, 0)
    assert kernels.cntk(images(1), images(0)).shape == (1, 0)
    assert kernels.cntk(images(1)).shape == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(filter=2), "odd"),
        (dict(depth=0), "depth"),
        (dict(pooling="max"), "pooling"),
        (dict(padding="same"), "padding"),
        (dict(filter=7, padding="circular"), "circular padding"),
        (dict(dtype=torch.float16), "dtype"),
        (dict(method="fast"), "method"),
        (dict(method="triton"), "triton"),
    ],
)
def test_what_is_wrong_is_named(wrong, says):
    with pytest.raises(InputError, match=says):
        kernels.cntk(images(), **wrong)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="all of one size"):
        kernels.cntk(images(), images(height=5))
