"""A study as a user would write one, of a paper that has three claims; its observables are planted."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from phenoscope.lab import Study, not_applicable

study = Study("snip", smoke={"seeds": 2}, gpu={"seeds": 20})


@study.experiment
def experiment(
    lab, *, model=None, shift: float = 1.0, seeds: int = 5, names: tuple[str, ...] = ("a", "b")
) -> xr.Dataset:
    """Draws numbers around a shift.

    Args:
        shift: where the numbers
            lie.
        seeds, names: how many, and of what.
    """
    cells = [{"seed": seed, "shift": shift} for seed in range(seeds)]
    return xr.concat(lab.map(one, cells), "seed").assign_coords(seed=range(seeds))


def one(lab, *, seed, shift):
    rng = np.random.default_rng(lab.seed("numbers", seed))
    return xr.Dataset({"value": shift + 0.01 * rng.standard_normal(), "square": float(lab.root)})


@study.claim("beats-random")
def is_large(result):
    return result.value


@study.claim("finds-relevant-inputs", note="because the numbers were planted so")
def is_negative(result):
    return -result.value


@study.claim("small-accuracy-cost-at-5-percent")
def applies_to_nothing(result):
    return not_applicable("nothing qualified")


@study.figure
def figure(result):
    return go.Figure(go.Scatter(y=result.value))
