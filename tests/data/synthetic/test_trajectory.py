import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.data import trajectory


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 4))
def test_an_ellipse_meets_its_three_points(shape, thirds):
    points = draw(3, *shape)
    path = trajectory(points, 3 * thirds, kind="ellipse")
    assert path.shape == (3 * thirds, *shape)
    torch.testing.assert_close(path[::thirds], points, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.mean(0), points.mean(0), rtol=0, atol=1e-10)


def test_a_circle_keeps_its_distance_and_its_plane():
    points = draw(2, 5)
    path = trajectory(points, 64, kind="circle")
    torch.testing.assert_close(path.norm(dim=1), points[0].norm().expand(64))
    torch.testing.assert_close(path[0], points[0])
    assert int(torch.linalg.matrix_rank(torch.cat([path, points]))) == 2
    assert float(path[1] @ points[1]) > float(path[0] @ points[1])  # it turns toward the second
    length = (path - path.roll(1, 0)).norm(dim=1).sum() / points[0].norm()
    assert float(length) == pytest.approx(64 * 2 * math.sin(math.pi / 64))  # a polygon of 64 sides


def test_a_line_goes_from_point_to_point_at_equal_times():
    points = draw(3, 2, 4).float()
    path = trajectory(points, 5, kind="line")
    assert path.dtype == torch.float32
    torch.testing.assert_close(path[::2], points)
    torch.testing.assert_close(path[1], points[:2].mean(0))
    torch.testing.assert_close(trajectory(points, torch.tensor([0.25, 1.0]), kind="line"), path[[1, 4]])


@pytest.mark.parametrize(("kind", "count"), [("line", 4), ("ellipse", 3), ("circle", 2)])
def test_derivatives_pass_through_the_places(kind, count):
    points, t = draw(count, 6), torch.tensor([0.2, 0.55], dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(lambda t: trajectory(points, t, kind=kind), t)
    speed = whole.diagonal(dim1=0, dim2=2).T
    assert (whole[0, :, 1] == 0).all()  # each place moves by its own time alone
    step = 1e-6
    numeric = (trajectory(points, t + step, kind=kind) - trajectory(points, t - step, kind=kind)) / (2 * step)
    torch.testing.assert_close(speed, numeric, rtol=1e-6, atol=1e-6)  # central differences


@pytest.mark.parametrize(
    ("points", "knobs", "word"),
    [
        (draw(2, 3), {"kind": "ellipse"}, "three"),
        (draw(3, 3), {"kind": "circle"}, "two"),
        (draw(1, 3), {"kind": "line"}, "at least two"),
        (draw(3, 3), {"kind": "spiral"}, "kind must be"),
        (draw(3, 3), {"kind": "line", "t": 0}, "at least 1 place"),
        (draw(3, 3), {"kind": "line", "t": torch.zeros(2, 2)}, "list of places"),
        (torch.ones(2, 3), {"kind": "circle"}, "one direction"),
        (torch.ones(2, 3, dtype=torch.long), {"kind": "line"}, "floating-point"),
    ],
)
def test_what_fixes_no_path_is_refused(points, knobs, word):
    with pytest.raises(InputError, match=word):
        trajectory(points, **knobs)
