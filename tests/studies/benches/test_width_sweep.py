import math

import numpy as np
import pytest
import xarray as xr

from phenoscope import train
from phenoscope.studies.benches import width_sweep as bench


def curve(values, widths=(2, 4, 8, 16, 32)):
    return xr.DataArray(np.asarray(values, dtype=float), {"width": list(widths)}, "width")


def test_the_peak_is_the_largest_inner_value_of_the_mean():
    assert bench.peak_width(curve([9, 1, 2, 5, 1])) == 16
    assert bench.peak_width(curve([9, 4, 3, 2, 9])) == 4  # where there is no peak, an end of the inside
    assert bench.peak_width(curve([1, 2], widths=(2, 4))) is None
    two = xr.concat([curve([0, 0, 9, 0, 0]), curve([0, 5, 0, 0, 0])], "seed")
    assert bench.peak_width(two) == 8


def test_the_first_descent_lies_below_the_peak():
    assert bench.first_descent_width(curve([3, 1, 2, 5, 0]), 16) == 4


def test_the_threshold_is_interpolated_in_log_width():
    assert bench.threshold_width(curve([0.9, 0.5, 0.2, 0.0, 0.0])) == pytest.approx(8 * 2**0.5)
    assert bench.threshold_width(curve([0.05, 0, 0, 0, 0])) == 2
    assert math.isnan(bench.threshold_width(curve([0.9, 0.8, 0.7, 0.6, 0.5])))


def test_first_weights_have_torchs_default_variance_and_biases_are_zero():
    network = train.build(bench.mlp, shape=(1, 8, 8), num_classes=10, width=512, generator=0)
    for layer, fan_in in ((network.linear1, 64), (network.logits, 512)):
        assert layer.weight.var().item() == pytest.approx(1 / (3 * fan_in), rel=0.06)  # 5120 draws: sd 2 %
        assert not layer.bias.any()
