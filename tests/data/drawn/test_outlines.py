import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path
from scipy.spatial import KDTree

from phenoscope.core.errors import InputError
from phenoscope.data import OUTLINES, outline

RADIUS = 40.0
# areas in units of the radius squared; of the star from its ten triangles round the middle
AREAS = {
    "circle": math.pi * 0.81,
    "square": 1.4**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 10 * 0.5 * 0.45 * math.sin(math.pi / 5),
    "cross": 4 * 0.94 * 0.6 - 0.36,
    "bar": 4 * 0.95 * 0.3,
    "ring": math.pi * (0.95**2 - 0.45**2),
}


def grid(size=160):
    center = torch.arange(size, dtype=torch.float64) + 0.5 - size / 2
    return center[None, :].expand(size, size), center[:, None].expand(size, size)


@pytest.mark.parametrize("kind", OUTLINES)
def test_the_area_inside_is_that_of_the_shape(kind):
    x, y = grid()
    cover = (0.5 - outline(kind, x, y, RADIUS)).clamp(0, 1).sum().item()
    # anti-aliasing makes the sum of pixels an area, but for the corners: about half a pixel each
    assert cover == pytest.approx(AREAS[kind] * RADIUS**2, abs=10)


def polar(radius, angle):
    """A corner at this angle from straight up."""
    return radius * np.sin(angle), -radius * np.cos(angle)


CORNERS = {
    "square": [(0.7, 0.7), (0.7, -0.7), (-0.7, -0.7), (-0.7, 0.7)],
    "bar": [(0.95, 0.3), (0.95, -0.3), (-0.95, -0.3), (-0.95, 0.3)],
    "triangle": [polar(1, 2 * np.pi * k / 3) for k in range(3)],
    "star": [polar(0.45 if k % 2 else 1, np.pi * k / 5) for k in range(10)],
    "cross": [
        *((0.3, 0.94), (0.3, 0.3), (0.94, 0.3), (0.94, -0.3), (0.3, -0.3), (0.3, -0.94)),
        *((-0.3, -0.94), (-0.3, -0.3), (-0.94, -0.3), (-0.94, 0.3), (-0.3, 0.3), (-0.3, 0.94)),
    ],
}


@pytest.mark.parametrize("kind", CORNERS)
def test_it_is_the_distance_to_the_nearest_of_many_points_of_the_outline(kind):
    corners = RADIUS * np.array(CORNERS[kind])
    share = np.linspace(0, 1, 400)[:, None]
    line = np.concatenate([a + share * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)])
    places = np.random.default_rng(0).uniform(-50, 50, (1500, 2))
    distance, _ = KDTree(line).query(places)
    sign = np.where(Path(corners).contains_points(places), -1, 1)
    found = outline(kind, *torch.from_numpy(places.T), RADIUS)
    # points of the line stand up to 0.15 apart; near the outline that makes a difference of half of it
    np.testing.assert_allclose(found.numpy(), sign * distance, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", OUTLINES)
def test_it_lies_within_its_circle_and_scales(kind):
    x, y = grid()
    signed = outline(kind, x, y, RADIUS)
    assert (torch.hypot(x, y)[signed < 0] <= RADIUS).all()
    torch.testing.assert_close(outline(kind, x / 2, y / 2, RADIUS / 2), signed / 2)


def test_triangle_and_star_point_upward():
    for kind in ("triangle", "star"):
        x, y = torch.zeros(2), torch.tensor([-0.95 * RADIUS, 0.95 * RADIUS])
        assert (outline(kind, x, y, RADIUS) < 0).tolist() == [True, False]


def test_an_unknown_shape_is_refused():
    with pytest.raises(InputError, match="blob"):
        outline("blob", torch.zeros(1), torch.zeros(1), 1.0)
