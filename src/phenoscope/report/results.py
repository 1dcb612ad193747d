"""The results that `phenoscope ablate` leaves beside a run."""

from __future__ import annotations

import json
from pathlib import Path

import xarray as xr

from ..core.errors import InputError

_ABLATION = {"count", "filters", "drop", "random_mean", "random_low", "random_high", "norm_drop"}


def read_ablation(file: Path) -> xr.Dataset:
    """A table as `record.ablate` makes it.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    data = _read(file)
    missing = sorted(name for name in _ABLATION if name not in data or data[name].dims != ("layer",))
    if missing or "layer" not in data.coords:
        raise InputError(f"{file} is no ablation table: {missing[0] if missing else 'layer'!r} is missing")
    return data


def read_slimming(file: Path) -> xr.Dataset:
    """What slimming changed, over `state`: before and after.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    data = _read(file)
    states = [str(state) for state in data["state"].values] if "state" in data.coords else []
    if not {"before", "after"} <= set(states):
        raise InputError(f"{file} is no slimming result: it has no states before and after")
    return data


def _read(file: Path) -> xr.Dataset:
    try:
        return xr.Dataset.from_dict(json.loads(file.read_text(encoding="utf-8"))["dataset"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} cannot be read: {error!r}") from error
