import math

import pytest
import torch
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.data import warp

X = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_the_identity_gives_the_image_back():
    assert torch.allclose(warp(X, torch.eye(3)[:2]), X, atol=1e-12)
    assert torch.allclose(warp(X, torch.eye(3).expand(2, 3, 3)), X, atol=1e-12)


def test_whole_pixels_are_moved_exactly_and_edges_are_continued():
    moved = warp(X, matrix((1, 0, 2), (0, 1, -1)))  # what stood two to the right and one above
    assert torch.allclose(moved[:, :, 1:, :-2], X[:, :, :-1, 2:], atol=1e-12)
    assert torch.allclose(moved[:, :, 0, :-2], X[:, :, 0, 2:], atol=1e-12)
    assert not warp(X, matrix((1, 0, 20), (0, 1, 0)), padding="zeros").any()


def test_half_a_pixel_is_the_mean_of_two():
    moved = warp(X, matrix((1, 0, 0.5), (0, 1, 0)))
    assert torch.allclose(moved[..., :-1], (X[..., :-1] + X[..., 1:]) / 2, atol=1e-12)


def test_a_quarter_turn_is_that_of_torch():
    square = X[..., :5]
    c, s = math.cos(math.pi / 2), math.sin(math.pi / 2)
    turned = warp(square, matrix((c, -s, 0), (s, c, 0)))
    assert torch.allclose(turned, torch.rot90(square, 1, (2, 3)), atol=1e-12)
    assert torch.allclose(warp(square, matrix((-1, 0, 0), (0, 1, 0))), square.flip(3), atol=1e-12)


def test_it_resamples_as_torchs_own_affine_grid():
    theta = torch.tensor([[[0.9, 0.2, 0.1], [-0.3, 1.1, -0.2]]], dtype=torch.float64).expand(2, 2, 3)
    grid = functional.affine_grid(theta, list(X.shape), align_corners=False)
    wanted = functional.grid_sample(X, grid, padding_mode="border", align_corners=False)
    h, w = X.shape[2:]  # torch counts in half sides, warp in pixels
    pixels = theta.clone()
    pixels[:, 0, 1] *= w / h
    pixels[:, 1, 0] *= h / w
    pixels[:, :, 2] *= torch.tensor([w / 2, h / 2])
    assert torch.allclose(warp(X, pixels), wanted, atol=1e-12)


def test_a_projective_map_of_one_scale_is_an_affine_one_and_a_true_one_is_not():
    affine = matrix((0.8, 0.1, 0.5), (0, 1.2, -0.5), (0, 0, 1))
    assert torch.allclose(warp(X, 2 * affine), warp(X, affine[:2]), atol=1e-12)
    tilted = affine.clone()
    tilted[2, 0] = 0.05
    source = tilted @ torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    u, v = (source[:2] / source[2]).tolist()
    x = torch.arange(7.0, dtype=torch.float64).expand(1, 1, 5, 7) - 3  # an image of its own place across
    assert warp(x, tilted)[0, 0, 1, 4].item() == pytest.approx(u)
    x = (torch.arange(5.0, dtype=torch.float64) - 2)[:, None].expand(1, 1, 5, 7)
    assert warp(x, tilted)[0, 0, 1, 4].item() == pytest.approx(v)


def test_every_image_has_its_own_matrix():
    matrices = torch.stack([torch.eye(3)[:2], matrix((1, 0, 1), (0, 1, 0)).float()])
    moved = warp(X, matrices)
    assert torch.allclose(moved[0], X[0]) and torch.allclose(moved[1, ..., :-1], X[1, ..., 1:])


def test_bad_input_is_named():
    with pytest.raises(InputError, match="images"):
        warp(X[0], torch.eye(3))
    with pytest.raises(InputError, match="images"):
        warp(X.byte(), torch.eye(3))
    with pytest.raises(InputError, match="matrix"):
        warp(X, torch.eye(3).expand(3, 3, 3))
