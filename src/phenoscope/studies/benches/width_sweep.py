"""The bench of double descent: digits with wrong labels, one hidden layer, widths from 2 to 512."""

from __future__ import annotations

import functools

import numpy as np
import torch
import xarray as xr

from ... import data, models

digits = functools.partial(data.digits, train=1200)
# larger first weights, and with them larger output weights, hide the second descent
mlp = functools.partial(models.mlp, depth=1, init=functools.partial(models.init_gaussian, sigma_w2=1 / 3))
ADAM = functools.partial(torch.optim.Adam, lr=5e-3)
WIDTHS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512)


def peak_width(curve: xr.DataArray) -> int | None:
    """The width of the largest value on the mean curve, both ends left out; `None` if there is nothing between."""
    mean = over_seeds(curve).isel(width=slice(1, -1))
    return int(mean.width[int(mean.values.argmax())]) if mean.size else None


def first_descent_width(curve: xr.DataArray, peak: int) -> int:
    """The width below the peak at which the mean curve is lowest."""
    mean = over_seeds(curve)
    below = mean.sel(width=mean.width < peak)
    return int(below.width[int(below.values.argmin())])


def over_seeds(curve: xr.DataArray) -> xr.DataArray:
    return curve.mean("seed") if "seed" in curve.dims else curve


def threshold_width(error: xr.DataArray, *, level: float = 0.1) -> float:
    """The smallest width at which an error falls below the level, interpolated in log width; NaN if it never does."""
    widths, values = error.width.values, error.values
    below = np.flatnonzero(values < level)
    if not len(below):
        return float("nan")
    after = int(below[0])
    if after == 0:
        return float(widths[0])
    logs = np.log(widths[after - 1 : after + 1])
    drop = values[after - 1] - values[after]
    return float(np.exp(logs[0] + (values[after - 1] - level) / drop * (logs[1] - logs[0])))
