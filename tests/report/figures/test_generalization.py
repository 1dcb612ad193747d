import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.core.errors import InputError
from phenoscope.report import generalization_curve
from phenoscope.stats import bootstrap


def result(repeats=3):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = torch.exp(-(torch.cdist(x, x) ** 2) / 8)
    return kernels.predict_generalization(
        kernel, None, x[:, 0], (8, 2, 5), ridges=(0.0, 0.1), repeats=repeats, generator=0
    )


def test_lines_are_predictions_in_order_and_marks_measured_means_with_their_intervals():
    found = result()
    figure = generalization_curve(found)
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["no ridge, predicted"].x) == [2, 5, 8]
    np.testing.assert_allclose(lines["ridge 0.1, predicted"].y, found.sortby("n").test_mse.sel(ridge=0.1))
    mark = lines["no ridge, measured"]
    for place, n in enumerate((2, 5, 8)):
        mean, low, high = bootstrap(found.measured_mse.sel(ridge=0, n=n), generator=0)
        np.testing.assert_allclose([mark.y[place], mark.error_y.array[place]], [mean, high - mean])
        np.testing.assert_allclose(mark.error_y.arrayminus[place], mean - low)


def test_the_target_is_summed_over_the_spectrum_and_zero_eigenvalues_are_not_drawn():
    found = result(0)
    found["eigenvalue"][-5:] = 0
    figure = generalization_curve(found)
    names = [trace.name for trace in figure.data]
    assert "no ridge, measured" not in names
    spectrum, target = figure.data[-2:]
    assert len(spectrum.x) == 25 and sum(spectrum.y) == pytest.approx(1)
    assert len(target.y) == 30 and target.y[-1] == pytest.approx(1) and (np.diff(target.y) >= 0).all()


def test_one_repetition_has_no_whiskers():
    mark = next(trace for trace in generalization_curve(result(1)).data if trace.name == "no ridge, measured")
    assert not np.any(mark.error_y.array) and not np.any(mark.error_y.arrayminus)


def test_another_result_is_refused():
    with pytest.raises(InputError, match="predict_generalization"):
        generalization_curve(xr.Dataset({"test_mse": ("n", [1.0])}))
