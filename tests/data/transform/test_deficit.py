import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.data import deficit


def images(n=6, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=generator), torch.arange(n) % 4


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(4, 13), st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_blur_leaves_constants_shapes_and_labels_alone(n, size, signal, dtype):
    x = torch.full((n, 2, size) if signal else (n, 2, size, size), 0.7, dtype=dtype)
    y = torch.arange(n)
    blurred, labels = deficit((x, y), "blur", factor=4)
    assert blurred.dtype == dtype and torch.equal(labels, y)
    torch.testing.assert_close(blurred, x)


def test_blur_of_images_is_pillows_reduction_brought_back_to_size():
    from PIL import Image

    x, y = images(1)
    found = deficit((x, y), "blur")[0][0, 0].numpy()
    small = Image.fromarray(x[0, 0].numpy()).reduce(4)  # averages of blocks of 4 x 4
    expected = np.asarray(small.resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # single precision


def test_blur_of_signals_takes_averages_over_eight_and_interpolates():
    x = torch.randn(2, 1, 40)
    found = deficit((x, torch.zeros(2)), "blur")[0]
    centers, means = np.arange(3.5, 40, 8), x.reshape(2, 5, 8).mean(2).numpy()
    for row, mean in zip(found[:, 0].numpy(), means, strict=True):
        np.testing.assert_allclose(row, np.interp(np.arange(40), centers, mean), atol=1e-5)


def test_blur_takes_fine_structure_and_leaves_coarse_structure():
    fine = torch.tensor([1.0, -1.0]).repeat(20)[None, None]
    coarse = torch.sin(torch.arange(40.0) * 2 * torch.pi / 40)[None, None]
    y = torch.zeros(1)
    assert deficit((fine, y), "blur")[0].abs().max() < 1e-6
    assert deficit((coarse, y), "blur")[0].std() > 0.8 * coarse.std()


def test_flip_is_upside_down_and_its_own_inverse():
    x, y = images()
    once = deficit((x, y), "flip")
    assert torch.equal(once[0][:, :, 0], x[:, :, -1]) and once[1] is y
    assert torch.equal(deficit(once, "flip")[0], x)


def test_no_class_keeps_its_name_and_each_gets_one():
    x, y = images(40)
    for seed in range(20):
        same, renamed = deficit((x, y), "labels", classes=5, generator=seed)
        assert same is x and renamed.dtype == y.dtype
        names = {(int(a), int(b)) for a, b in zip(y, renamed, strict=True)}
        assert len(names) == 4 and len({b for _, b in names}) == 4
        assert all(a != b for a, b in names)
    assert torch.equal(
        deficit((x, y), "labels", generator=3)[1], deficit((x, y), "labels", generator=3)[1]
    )  # fmt: skip


def test_noise_keeps_nothing_of_the_inputs_but_mean_and_spread():
    x, y = images(200)
    noise, labels = deficit((x * 2 + 3, y), "noise", generator=1)  # the images were drawn with 0
    assert labels is y
    # 38,400 draws: standard errors of 0.01
    assert abs(noise.mean() - 3) < 0.05 and abs(noise.std() - 2) < 0.05
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), x.flatten()]))[0, 1]) < 0.03


def test_wrong_input_is_named():
    x, y = images()
    for bad, kind, settings_, words in (
        ((x, y), "fog", {}, "kind"),
        ((x.flatten(1), y), "blur", {}, "images"),
        ((x.flatten(1), y), "flip", {}, "images"),
        ((x, y), "blur", {"factor": 9}, "factor"),
        ((x, y.double()), "labels", {}, "classes"),
        ((x, y), "labels", {"classes": 3}, "go up to 3"),
        ((x, torch.zeros(6, dtype=torch.long)), "labels", {}, "among 1 classes"),
    ):
        with pytest.raises(InputError, match=words):
            deficit(bad, kind, **settings_)
