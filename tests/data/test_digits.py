import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.data import digits


def test_the_split_holds_every_digit_once_with_its_label():
    split = digits(train=1000, validation=300, generator=1)
    assert [len(part[1]) for part in (split.train, split.validation, split.test)] == [1000, 300, 497]
    x = torch.cat([split.train[0], split.validation[0], split.test[0]])
    y = torch.cat([split.train[1], split.validation[1], split.test[1]])
    low, high = split.range
    pixels = (16 * (x - low) / (high - low)).round().long().flatten(1)
    found = sorted((*row, label) for row, label in zip(pixels.tolist(), y.tolist(), strict=True))
    raw, labels = load_digits(return_X_y=True)
    expected = sorted((*row, label) for row, label in zip(raw.astype(int).tolist(), labels.tolist(), strict=True))
    assert found == expected


def test_shapes_and_kinds():
    split = digits(32, 3, generator=0)
    assert split.train[0].shape == (1400, 3, 32, 32)
    assert split.test[0].shape == (397, 3, 32, 32)
    assert split.validation is None
    assert split.train[0].dtype == torch.float32
    assert split.train[1].dtype == torch.int64
    assert split.classes == tuple("0123456789")


@pytest.mark.parametrize("size", [8, 32, 45])
def test_standardized_by_the_training_part_alone(size):
    x = digits(size, 2, generator=0).train[0].double()
    # values of float32, rounded at 1e-7; their mean over 10^5 to 10^6 values is off by less than 1e-5
    assert abs(x.mean().item()) < 1e-5
    assert abs(x.std(correction=0).item() - 1) < 1e-5


def test_channels_are_equal_and_resampled_bilinearly():
    small, large = digits(8, 1, generator=0), digits(32, 3, generator=0)
    x = large.test[0]
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])

    def unit(split):
        low, high = split.range
        return (split.test[0] - low) / (high - low)

    expected = functional.interpolate(unit(small), size=32, mode="bilinear", align_corners=False)
    # both are between 0 and 1 and were scaled back and forth in float32: a few units of 1e-7
    torch.testing.assert_close(unit(large)[:, :1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [8, 9, 32])
def test_range_is_that_of_blank_and_full_ink(size):
    split = digits(size, generator=0)
    low, high = split.range
    x = torch.cat([split.train[0], split.test[0]])
    assert x.min().item() == pytest.approx(low, abs=1e-6)
    assert x.min().item() >= low
    assert x.max().item() <= high
    assert low < 0 < high


def test_the_seed_decides_the_split():
    assert torch.equal(digits(generator=2).train[0], digits(generator=2).train[0])
    assert not torch.equal(digits(generator=2).train[1], digits(generator=3).train[1])
    assert torch.equal(digits().train[1], digits(generator=0).train[1])


@pytest.mark.parametrize(
    "arguments", [{"size": 7}, {"channels": 0}, {"train": 0}, {"train": 1797}, {"validation": -1}, {"validation": 397}]
)
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(InputError):
        digits(**arguments)
