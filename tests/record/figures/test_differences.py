"""The figure of two runs: the log axis has readable ticks however wide it is."""

import math
import re

import numpy as np
import pytest
import xarray as xr

from phenoscope.record.figures import differences


def compared(values):
    count = values.shape[1]
    other = np.linspace(0.1, 0.9, 2 * count).reshape(2, count)
    names = ("changed", "distance_per_weight", "settled")
    panels = zip(names, (other, values, 100 * other), strict=True)
    return xr.Dataset({k: (("run", "layer"), v) for k, v in panels}, {"layer": [f"l.{i}" for i in range(count)]})


@pytest.mark.parametrize("low", [3e-9, 2.2e-4, 0.13, 7.0])
@pytest.mark.parametrize("ratio", [1.02, 1.5, 3.6, 8, 40, 500, 1e5, 1e9, 1e14])
def test_a_log_axis_has_three_to_six_ticks_apart_from_each_other(low, ratio):
    values = np.geomspace(low, low * ratio, 16).reshape(2, 8)
    axis = differences(compared(values)).layout.xaxis2
    ticks = np.array(axis.tickvals)
    assert axis.type == "log" and 3 <= len(ticks) <= 6
    width = math.log(ratio)  # of which the axis adds some five hundredths on either side
    assert np.log(ticks[0] / low) >= -0.06 * width and np.log(ticks[-1] / (low * ratio)) <= 0.06 * width
    assert (np.diff(np.log(ticks)) > 0.1 * width).all()  # labels of a narrow panel take a tenth of it
    for text, tick in zip(axis.ticktext, ticks, strict=True):
        power = re.fullmatch(r"(?:([\d.]+)×)?10<sup>(-?\d+)</sup>", text)
        read = float(power[1] or 1) * 10.0 ** int(power[2]) if power else float(text)
        assert read == pytest.approx(tick, rel=5e-3)  # three digits are shown


@pytest.mark.parametrize("value", [0.0, 0.25, np.nan])
def test_layers_that_moved_alike_or_never_leave_the_ticks_to_plotly(value):
    assert differences(compared(np.full((2, 3), value))).layout.xaxis2.tickvals is None
