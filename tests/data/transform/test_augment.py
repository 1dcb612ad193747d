from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.data import color, compose, crop, spatial

X = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))
ALL = [spatial, crop, color, compose(spatial, color)]


@pytest.mark.parametrize("transform", ALL)
def test_a_seed_gives_the_same_views_and_a_generator_goes_on(transform):
    assert torch.equal(transform(X, 3), transform(X, 3))
    generator = torch.Generator().manual_seed(3)
    first, second = transform(X, generator), transform(X, generator)
    assert torch.equal(first, transform(X, 3)) and not torch.equal(first, second)


@pytest.mark.parametrize("transform", ALL)
def test_every_image_is_drawn_on_its_own(transform):
    same = X[:1].expand(8, -1, -1, -1)
    found = transform(same, 0)
    assert all(not torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("transform", ALL)
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9), st.sampled_from([torch.float32, torch.float64]))
def test_shapes_and_types_stay(transform, n, channels, side, dtype):
    x = torch.rand(n, channels, side, side + 1, dtype=dtype)
    found = transform(x, 0)
    assert found.shape == x.shape and found.dtype == dtype and found.isfinite().all()


@pytest.mark.parametrize("transform", ALL)
def test_under_vmap_every_member_draws_its_own_views(transform):
    found = torch.func.vmap(transform, randomness="different")(X[:4].expand(2, -1, -1, -1, -1))
    assert found.shape == (2, 4, 3, 12, 12) and not torch.equal(found[0], found[1])


def test_nothing_to_move_gives_the_images_back():
    still = partial(spatial, shift=0.0, rotation=0.0, scale=(1.0, 1.0))
    assert torch.allclose(still(X, 0), X, atol=1e-5)
    assert torch.allclose(crop(X, 0, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0), X, atol=1e-5)
    assert torch.equal(color(X, 0, strength=0.0), X)


def test_shifts_are_uniform_between_their_limits():
    x = torch.arange(21.0).expand(2000, 1, 1, 21)  # an image of its own place across
    moved = spatial(x, 0, shift=2.0, rotation=0.0, scale=(1.0, 1.0))[:, 0, 0, 10] - 10
    assert moved.abs().max() <= 2 + 1e-4
    assert moved.mean().item() == pytest.approx(0, abs=0.1)  # 4 standard errors: 4 * 1.155 / sqrt(2000)
    assert moved.std().item() == pytest.approx(2 / 3**0.5, rel=0.05)


def test_a_larger_scale_enlarges_what_is_seen():
    x = torch.zeros(1, 1, 21, 21)
    x[:, :, 6:15, 6:15] = 1
    large = spatial(x, 0, shift=0.0, rotation=0.0, scale=(1.5, 1.5))
    assert large.sum().item() == pytest.approx(1.5**2 * 81, rel=0.1)


def test_a_crop_shows_a_part_and_mirrors_half_of_the_images():
    x = torch.arange(21.0).expand(1000, 1, 21, 21) - 10
    found = crop(x, 0, area=(0.25, 0.25), aspect=(1.0, 1.0))[:, 0, 10]
    slope = found[:, 11] - found[:, 10]
    assert torch.allclose(slope.abs(), torch.full((1000,), 0.5), atol=1e-4)  # half the side over the whole width
    assert (slope < 0).float().mean().item() == pytest.approx(0.5, abs=0.07)  # 4 standard errors
    assert found.abs().max() <= 10


def test_color_permutes_scales_and_shifts_whole_channels():
    found = color(X, 0)
    for image, changed in zip(X.flatten(2).double(), found.flatten(2).double(), strict=True):
        sources = []
        for channel in changed:
            source = max(
                range(3), key=[torch.corrcoef(torch.stack([each, channel]))[0, 1].item() for each in image].__getitem__
            )
            factor = (channel.std() / image[source].std()).item()
            summand = (channel - factor * image[source]).mean().item()
            assert torch.allclose(channel, factor * image[source] + summand, atol=1e-5)
            assert 0.4 - 1e-4 <= factor <= 1.2 + 1e-4 and -0.0901 <= summand <= 0.2101
            sources.append(source)
        assert sorted(sources) == [0, 1, 2]


def test_half_the_strength_lies_half_way():
    half, whole = color(X, 0, strength=0.5), color(X, 0)
    assert torch.allclose(half, (X + whole) / 2, atol=1e-6)


def test_bad_input_is_named():
    for call, message in [
        (partial(spatial, X, scale=(0.0, 1.0)), "scale"),
        (partial(crop, X, area=(0.5, 2.0)), "area"),
        (partial(color, X, strength=2.0), "strength"),
        (partial(spatial, X[0]), "images"),
    ]:
        with pytest.raises(InputError, match=message):
            call(0)
