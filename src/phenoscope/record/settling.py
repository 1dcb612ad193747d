"""When each layer stopped changing, and which weights could have been frozen from then on."""

from __future__ import annotations

from math import prod

import numpy as np
import xarray as xr

from ..core.errors import InputError
from .layers import Layer
from .run import Run


def settling(run: Run, *, threshold: float = 0.05, window: int = 5) -> xr.Dataset:
    """The update after which a layer's changed share stays under a threshold, to the end of the run.

    S_t, the changed share of a layer at record t (equation 2 of Hu, Wang, Li and Huang, VCIP 2018), is smoothed by a
    running median over `window` records, t in the middle, fewer at the ends. Let l be the last record whose median
    reaches the threshold: the layer has settled at the step of l, if at least `window` records follow. The median
    forgives (window - 1) / 2 records in a row above the threshold, and neither delays nor hastens a clean fall.
    A gap in the recording says nothing: its records are left out, and a layer that was loud before a gap and quiet
    after it has settled at the record that ends the gap, the latest step that it can have been.

    A small changed share does not say that a layer has learned what it can. It counts movements above tau, which is
    fixed, so that a learning rate that falls lets every layer settle (`rate` says how far it had fallen), and it
    depends on how many updates lie between records. Compare layers of a run, or runs recorded alike.

    Args:
        run: a recorded run.
        threshold: the changed share, above 0 and at most 1, under which a layer counts as quiet.
        window: records of the running median, an odd number; 1 forgives nothing.

    Returns:
        Over `layer`: `settled`, the step (NaN: not within this run); `below`, the step from which it and all layers
        before it have settled; `before` and `after`, the mean changed share up to and from `settled`; `rate`, the
        learning rate at that step over the largest until then (NaN where none was kept). Attributes: `threshold`,
        `window`, `end` (the last step).

    Raises:
        InputError: a bad threshold or window, or a run with fewer records than a window.

    Example:
        >>> settled = settling(open_run("runs/vgg"))["settled"]  # doctest: +SKIP
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must be a changed share above 0 and at most 1, not {threshold!r}")
    if window < 1 or window % 2 == 0:
        raise InputError(f"window must be an odd number of records, not {window!r}")
    means = run.means
    steps = means["step"].to_numpy().astype(float)
    changed = means["changed"].to_numpy()
    if len(steps) < window:
        raise InputError(f"{run.path} has {len(steps)} records, fewer than window={window}: record longer")
    start = max(0.0, steps[0] - float(run.metadata.get("every") or steps[0]))
    begins = np.append(start, steps[:-1])  # of the window that each record closes
    rates = _rates(run)
    rows = [_settled(begins, steps, changed[:, i], rates, threshold, window) for i in range(changed.shape[1])]
    settled, before, after, rate = np.array(rows).reshape(-1, 4).T
    values = {
        "settled": settled,
        "below": np.maximum.accumulate(settled) if len(settled) else settled,  # NaN, too, is carried on
        "before": before,
        "after": after,
        "rate": rate,
    }
    return xr.Dataset(
        {name: ("layer", value) for name, value in values.items()},
        coords={"layer": list(run.layers)},
        attrs={"threshold": threshold, "window": window, "end": float(steps[-1])},
    )


def freezing(run: Run, settled: xr.Dataset | None = None, *, in_order: bool = True) -> dict[int, list[str]]:
    """The schedule of freezing that `settling` suggests for a training like the recorded one: {step: parameters}.

    After update `step`, these parameters need no gradient any more:

        for name in schedule.get(step, ()):
            parameters[name].requires_grad_(False).grad = None

    A weight that holds several layers (q, k and v, the experts of a mixture) is frozen when all of them have settled,
    and never if a part of it was not recorded; a bias goes with its weight. What a run does not record (norms,
    embeddings) is not named; where one stands before layers that are frozen, backward still runs through them.

    Args:
        run: the run that `settled` is of.
        settled: as `settling` gives it; by default with its defaults.
        in_order: freeze a layer once all before it, in the order of the modules, have settled, too: only then does
            backward end early. Otherwise each layer alone, which saves its weight's gradient and no more.

    Returns:
        Steps in rising order, each with names as in `model.named_parameters()`. Layers that settled only in the last
        `window` records, or not at all, are in none.

    Raises:
        InputError: `settled` has not the layers of the run.
    """
    if settled is None:
        settled = settling(run)
    if list(settled["layer"].values) != list(run.layers):
        raise InputError("settled= has other layers than the run: take it from settling(run)")
    steps = dict(zip(run.layers, settled["below" if in_order else "settled"].to_numpy(), strict=True))
    weights: dict[str, list[Layer]] = {}
    biases: dict[str, list[str]] = {}
    for layer in run.layers.values():
        weights.setdefault(layer.parameter, []).append(layer)
        if layer.bias is not None:
            biases.setdefault(layer.bias, []).append(layer.parameter)
    frozen = {
        name: max(steps[part.name] for part in parts)
        for name, parts in weights.items()
        if all(np.isfinite(steps[part.name]) for part in parts) and _whole(parts)
    }
    frozen |= {
        bias: max(frozen[weight] for weight in owners)
        for bias, owners in biases.items()
        if all(weight in frozen for weight in owners)
    }
    return {int(step): [n for n, at in frozen.items() if at == step] for step in sorted(set(frozen.values()))}


def _settled(
    begins: np.ndarray, steps: np.ndarray, changed: np.ndarray, rates: np.ndarray, threshold: float, window: int
) -> tuple[float, float, float, float]:
    """Of one layer: the step of settling, mean changed share before and after it, share of the learning rate then."""
    there = np.flatnonzero(np.isfinite(changed))
    values = changed[there]
    if not len(values):
        return np.nan, np.nan, np.nan, np.nan
    half = window // 2
    padded = np.pad(values, half, constant_values=np.nan)
    medians = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)
    loud = np.flatnonzero(medians >= threshold)
    first = int(loud[-1]) + 1 if len(loud) else 0  # the first record of the quiet end
    if len(values) - first < window:
        return np.nan, float(values.mean()), np.nan, np.nan
    at = there[first]
    largest = np.fmax.accumulate(rates)[at]
    before = float(values[:first].mean()) if first else np.nan
    return float(begins[at]), before, float(values[first:].mean()), float(rates[at] / largest) if largest else np.nan


def _rates(run: Run) -> np.ndarray:
    """The learning rate at every record (of the first group), NaN where it was not kept."""
    if "lr" not in run.scalars:
        return np.full(len(run.steps), np.nan)
    return run.scalars["lr"].to_numpy()


def _whole(parts: list[Layer]) -> bool:
    """Whether these layers together make up their weight."""
    return sum(len(part) * prod(part.entries) for part in parts) == prod(parts[0].shape)
