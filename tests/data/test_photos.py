import pytest
import torch
from sklearn.datasets import load_sample_image

from phenoscope.core.errors import InputError
from phenoscope.data import patches, photos


def test_the_photographs_are_scikit_learns():
    images = photos()
    for image, name in zip(images, ("china.jpg", "flower.jpg"), strict=True):
        expected = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        assert torch.equal((255 * image).round().byte(), expected)
    images.zero_()
    assert photos().any()


def test_patches_are_squares_of_the_images_from_everywhere():
    places = torch.stack([torch.arange(12 * 15.0).reshape(12, 15), 1000 + torch.arange(12 * 15.0).reshape(12, 15)])
    cut = patches(places[:, None], 3000, size=5, generator=0)
    corner = cut[:, 0, 0, 0].long()
    number, top, left = corner // 1000, corner % 1000 // 15, corner % 1000 % 15
    for n, row, column, patch in zip(number[:50], top[:50], left[:50], cut[:50], strict=True):
        assert torch.equal(patch[0], places[n, row : row + 5, column : column + 5])
    for found, count in ((number, 2), (top, 8), (left, 11)):
        assert set(found.tolist()) == set(range(count))
    assert torch.equal(cut, patches(places[:, None], 3000, size=5, generator=0))


def test_patches_larger_than_the_image_are_refused():
    with pytest.raises(InputError, match="9x9"):
        patches(torch.zeros(1, 3, 8, 20), 4, size=9)
    assert patches(torch.zeros(1, 3, 8, 20), 1, size=8, generator=0).shape == (1, 3, 8, 8)
