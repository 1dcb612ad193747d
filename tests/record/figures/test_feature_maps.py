import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record.figures import feature_maps


def test_the_last_panel_shows_what_the_trained_layer_computes(record, pixels):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2)
    run = record(layer, shape=(4, 30, 30), steps=5)
    x = torch.randn(4, 30, 30)
    figure = feature_maps(run, x)
    before, after = (pixels(panel.source) for panel in figure.data[1:])
    order = np.argsort(-run.average("weight")["distance"].to_numpy(), kind="stable")
    with torch.no_grad():
        maps = layer(x[None])[0].numpy()[order]
    first = run.snapshot(0)
    started = nn.functional.conv2d(x[None], first["weight"], first["bias"], 2, 1, 1, 2)[0].numpy()[order]
    for place in range(6):  # in rows of three, 15 pixels a side, two between them
        top, left = 17 * (place // 3), 17 * (place % 3)
        low, high = (f([maps[place], started[place]]) for f in (np.min, np.max))
        for panel, values in ((after, maps), (before, started)):
            shown = panel[top : top + 15, left : left + 15, 0]
            # rounded to whole numbers, after a convolution in float32
            np.testing.assert_allclose(shown, (values[place] - low) / (high - low) * 255, atol=0.52)
    assert [title.text for title in figure.layout.annotations] == ["the image", "step 0", f"step {run.snapshots[-1]}"]


def test_an_image_file_is_reduced_and_its_proportions_stay(recorded, pixels, tmp_path):
    file = tmp_path / "wide.png"
    colors = np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8)
    Image.fromarray(colors).save(file)
    panel = pixels(feature_maps(recorded[1], file).data[0].source)
    assert panel.shape == (64, 128, 4)


def test_large_maps_are_reduced_to_128_pixels(recorded, pixels):
    panel = pixels(feature_maps(recorded[1], torch.rand(3, 300, 150), filters=1).data[2].source)
    assert panel.shape == (128, 64, 4)


def test_a_grey_image_serves_every_channel(recorded):
    feature_maps(recorded[1], torch.rand(1, 20, 20))


def test_places_without_a_filter_are_transparent(recorded, pixels):
    panel = pixels(feature_maps(recorded[1], torch.rand(3, 20, 20)).data[1].source)  # 8 filters in 3 x 3 places
    assert panel[-1, 0, 3] == 255 and panel[-1, -1, 3] == 0


def test_what_cannot_be_shown_is_said(recorded, record, tmp_path):
    _, run = recorded
    with pytest.raises(InputError, match="2 channels, but the first layer takes 3"):
        feature_maps(run, torch.rand(2, 9, 9))
    with pytest.raises(InputError, match="C, H, W"):
        feature_maps(run, torch.rand(1, 3, 9, 9))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for file in (broken, tmp_path / "missing.png"):
        with pytest.raises(InputError, match=file.name):
            feature_maps(run, file)
    with pytest.raises(InputError, match="2-D convolution"):
        feature_maps(record(nn.Conv1d(3, 2, 3), "1d", (3, 9), steps=1), torch.rand(3, 9, 9))
    with pytest.raises(InputError, match="2 x 2 pixels"):
        feature_maps(record(nn.Conv2d(3, 2, 5), "large", (3, 9, 9), steps=1), torch.rand(3, 2, 2))
