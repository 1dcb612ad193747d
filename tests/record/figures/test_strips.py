import shutil

import numpy as np
import pytest
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record import open_run
from phenoscope.record.figures import strips


def test_rows_are_filters_and_columns_are_snapshots_scaled_by_the_filters_own_range(recorded, pixels):
    _, run = recorded
    figure = strips(run)
    steps = run.snapshots
    rows = [int(name) for name in figure.layout.yaxis.ticktext]
    assert list(figure.layout.xaxis.ticktext) == [str(step) for step in steps]
    distance = run.average("0")["distance"].to_numpy()
    assert (np.diff(distance[rows]) <= 0).all() and sorted(rows) == list(range(8))
    image = pixels(figure.data[0].source)
    weights = np.stack([run.snapshot(step)["0.weight"].numpy() for step in steps])
    for y, row in zip(figure.layout.yaxis.tickvals, rows, strict=True):
        own = weights[:, row]
        for x, weight in zip(figure.layout.xaxis.tickvals, own, strict=True):
            middle = (weight[:, 1, 1] - own.min()) / (own.max() - own.min()) * 255
            np.testing.assert_allclose(image[int(y), int(x), :3], middle, atol=0.51)  # rounded to whole numbers
            assert image[int(y), int(x), 3] == 255


def test_other_than_three_channels_are_shown_by_their_mean_in_grey(record, pixels):
    run = record(nn.Conv2d(2, 4, 5), shape=(2, 9, 9), steps=3)
    image = pixels(strips(run).data[0].source)
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
    assert len(np.unique(image[..., 0])) > 20


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv1d(3, 4, 5), (3, 9)), (nn.Conv3d(1, 4, 3), (1, 5, 5, 5)), (nn.ConvTranspose2d(3, 4, 3), (3, 5, 5))],
)
def test_every_kind_of_convolution_has_strips(record, layer, shape):
    assert len(strips(record(layer, shape=shape, steps=2), filters=3).layout.yaxis.ticktext) == 3


def test_at_most_24_snapshots_are_shown_with_the_first_and_last_among_them(record):
    run = record(nn.Conv2d(1, 2, 3), shape=(1, 4, 4), steps=3)
    first = run.path / "snapshots" / f"step-{0:012d}.safetensors"
    for step in range(4, 60):
        shutil.copy(first, first.with_name(f"step-{step:012d}.safetensors"))
    shown = strips(open_run(run.path)).layout.xaxis.ticktext
    assert len(shown) == 24 and (shown[0], shown[-1]) == ("0", "59")


def test_what_cannot_be_shown_is_said(record):
    with pytest.raises(InputError, match="is Linear"):
        strips(record(nn.Linear(3, 2), "linear", (3,), steps=2))
    run = record(nn.Conv2d(3, 2, 3), "bare", (3, 4, 4), steps=2)
    shutil.rmtree(run.path / "snapshots")
    with pytest.raises(InputError, match="kept no weights"):
        strips(run)
    with pytest.raises(InputError, match="at least 1"):
        strips(record(nn.Conv2d(3, 2, 3), "none", (3, 4, 4), steps=2), filters=0)
