import numpy as np
import pytest
import xarray as xr

from phenoscope.core.errors import InputError
from phenoscope.report.figures import loss_surface


def plane(lowest=0.01):
    x, y = np.linspace(-1, 2, 4), np.linspace(0, 3, 4)
    z = lowest + x[None] ** 2 + y[:, None] ** 2
    return xr.Dataset(
        {
            "loss": (("y", "x"), z),
            "error": (("y", "x"), z / 20),
            "state_x": ("state", [0.0, 1.0, 0.5]),
            "state_y": ("state", [0.0, 0.0, 2.0]),
            "state_loss": ("state", [0.01, 1.01, 4.26]),
            "state_error": ("state", [0.0, 0.05, 0.2]),
        },
        {"x": x, "y": y},
    )


def line():
    return plane().isel(y=0, drop=True).drop_vars("state_y")


def test_a_plane_is_a_map_with_its_states_marked():
    figure = loss_surface(plane(), names=("a", "b", "c"))
    contour, marks = figure.data
    assert contour.type == "contour"
    np.testing.assert_allclose(contour.z, np.log10(plane().loss))  # colors by the logarithm, values under the mouse
    np.testing.assert_allclose(contour.customdata, plane().loss)
    assert list(marks.text) == ["a", "b", "c"] and list(marks.x) == [0, 1, 0.5] and list(marks.y) == [0, 0, 2]
    assert figure.layout.yaxis.scaleanchor == "x"
    assert float(contour.colorbar.ticktext[0]) == 0.01


def test_errors_and_losses_of_zero_are_colored_as_they_are():
    np.testing.assert_allclose(loss_surface(plane(), value="error").data[0].z, plane().error)
    flat = plane(lowest=0.0)
    np.testing.assert_allclose(loss_surface(flat).data[0].z, flat.loss)


def test_a_relief_stands_in_three_dimensions():
    shape, marks = loss_surface(plane(), relief=True).data
    assert shape.type == "surface" and marks.type == "scatter3d"
    np.testing.assert_allclose(shape.z, plane().loss)
    np.testing.assert_allclose(marks.z, plane().state_loss)


def test_a_line_is_a_curve():
    curve, marks = loss_surface(line()).data
    np.testing.assert_allclose(curve.y, line().loss)
    np.testing.assert_allclose(marks.y, line().state_loss)


def test_a_random_axis_is_not_a_distance():
    beside = plane()
    beside["state_y"] = beside.state_y * 0
    assert loss_surface(beside).layout.yaxis.scaleanchor is None


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"no result of landscape\.surface"):
        loss_surface(xr.Dataset({"loss": 1.0}))
    with pytest.raises(InputError, match="2 names for 3 states"):
        loss_surface(plane(), names=("a", "b"))
    with pytest.raises(InputError, match="needs a plane"):
        loss_surface(line(), relief=True)
