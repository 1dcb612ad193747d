import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from phenoscope.core.errors import InputError
from phenoscope.data import OUTLINES, render, shapes


def scenes(**knobs):
    return shapes(**{"train": 60, "test": 10, "scale": "unit", "generator": 0, **knobs})


def by_hand(factors, number, size, finer=16):
    """A square, triangle or circle by Pillow, drawn large and shrunk, on the plain background of the image."""
    own = {name: getattr(factors, name)[number] for name in ("x", "y", "radius", "rotation", "shape", "color")}
    x, y, r = (float(own[name][0]) * finer for name in ("x", "y", "radius"))
    kind = OUTLINES[int(own["shape"][0])]
    image = Image.new("L", (size * finer, size * finer), 0)
    pen = ImageDraw.Draw(image)
    if kind == "circle":
        pen.ellipse([x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r], fill=255)
    else:
        turns = {"triangle": (3, 1.0, 0.0), "square": (4, 0.7 * 2**0.5, np.pi / 4)}[kind]
        angles = turns[2] + 2 * np.pi * np.arange(turns[0]) / turns[0] - np.pi / 2 + float(own["rotation"][0])
        pen.polygon([(x + turns[1] * r * np.cos(a), y + turns[1] * r * np.sin(a)) for a in angles], fill=255)
    cover = np.asarray(image, dtype=np.float32).reshape(size, finer, size, finer).mean((1, 3)) / 255
    ground, color = factors.background_color[number].numpy(), own["color"][0].numpy()
    return ground[:, None, None] + (color - ground)[:, None, None] * cover


def test_pixels_are_those_of_an_image_drawn_large_and_shrunk():
    made = scenes(classes=("circle", "square", "triangle"), backgrounds=("flat",), rotation=0.5)
    images, _ = render(made.factors["train"])
    for number in range(30):
        expected = by_hand(made.factors["train"], number, 32)
        error = np.abs(images[number].numpy() - expected)
        # coverage from the distance of the center alone is off by a few percent at slanted edges, more at corners
        assert error.max() < 0.25 and error.mean() < 0.004


def test_masks_are_the_pixels_that_the_object_colors():
    made = scenes(backgrounds=("flat",))
    factors = made.factors["train"]
    images, masks = render(factors)
    ground = factors.background_color[:, :, None, None]
    color = factors.color[:, 0, :, None, None]
    share = ((images - ground) * (color - ground)).sum(1) / (color - ground).square().sum(1)
    assert torch.equal(masks[:, 0], share > 0.5)
    assert masks.dtype == torch.bool and masks.shape == (60, 1, 32, 32)


def test_one_factor_changes_and_nothing_else():
    made = scenes(textures=("flat", "stripes", "dots"), backgrounds=("smooth", "noise"))
    factors = made.factors["train"]
    images, masks = made.render(factors)
    plain, same_masks = made.render(factors.change(texture="flat"))
    assert torch.equal(masks, same_masks)
    outside = ~masks & (torch.nn.functional.max_pool2d(masks.float(), 5, 1, 2) == 0)
    assert torch.equal(plain.where(outside, 0), images.where(outside, 0))  # beyond the anti-aliased edge
    striped = factors.texture[:, 0] != 0
    assert all(not torch.equal(plain[k], images[k]) for k in striped.nonzero()[:, 0])
    assert torch.equal(plain[~striped], images[~striped])
    assert torch.equal(made.render(factors)[0], images)


def test_the_same_scene_alone_and_among_others_is_the_same():
    made = scenes(train=600, textures=("flat", "stripes"), rotation=0.3)
    images, masks = render(made.factors["train"])
    for number in (0, 255, 256, 599):
        image, mask = render(made.factors["train"][number : number + 1])
        # vectorized and single arithmetic may round otherwise
        torch.testing.assert_close(image[0], images[number], rtol=0, atol=1e-5)
        assert torch.equal(mask[0], masks[number])


def test_without_an_object_there_is_background_alone():
    factors = scenes(backgrounds=("flat",)).factors["test"].change(shape=-1)
    images, masks = render(factors)
    assert not masks.any()
    assert torch.equal(images, factors.background_color[:, :, None, None].expand_as(images))


def test_a_smooth_background_has_the_spread_asked_for():
    factors = scenes(train=2000).factors["train"].change(shape=-1, background_color=0.5)
    images, _ = render(factors)
    # 2000 images of 45 independent waves; clipping at 6 deviations does nothing
    assert (images - 0.5).square().mean().sqrt().item() == pytest.approx(0.08, rel=0.02)
    spectrum = torch.fft.rfft2(images - images.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    # half waves do not end where they began, which puts a tenth of the power elsewhere; of white noise it were 3%
    assert spectrum[:4, :4].sum() + spectrum[-3:, :4].sum() > 0.85 * spectrum.sum()


def test_soft_edges_fade_and_textures_stay():
    factors = scenes(backgrounds=("flat",), colors=["black"], background_colors=["white"]).factors["train"]
    steps = []
    for soft in (0.0, 6.0):
        images, _ = render(factors, soft=soft)
        steps.append((images[:, 0, :, 1:] - images[:, 0, :, :-1]).abs().amax())
    assert steps[0] > 0.9 and steps[1] < 0.25


def test_a_larger_image_shows_the_same_factors_in_pixels():
    factors = scenes().factors["test"]
    assert render(factors, size=48)[1][:, :, 32:].sum() == 0
    assert torch.equal(render(factors, size=48)[1][:, :, :32, :32], render(factors)[1])


def test_unknown_factors_and_names_are_refused():
    factors = scenes().factors["test"]
    for change, culprit in (({"hue": 1.0}, "hue"), ({"shape": "blob"}, "blob"), ({"x": "left"}, "left")):
        with pytest.raises(InputError, match=culprit):
            factors.change(**change)
    with pytest.raises(InputError, match="soft"):
        render(factors, soft=-1.0)
