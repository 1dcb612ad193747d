"""How far and which way weights have moved since a training began."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.errors import InputError

if TYPE_CHECKING:
    import xarray

WHOLE = "all"  # the label of all layers together


def weight_motion(states: Mapping[int, Mapping[str, Tensor]], *, names: Sequence[str] | None = None) -> xarray.Dataset:
    """Follow the weights of one training through its snapshots: sizes, signs, distances, angle and path.

    Start and end are the first and the last snapshot, w0 and wT; the others lie between. After the telemetry of
    Frankle, Schwab and Morcos, "The Early Phase of Neural Network Training" (ICLR 2020, section 3).

    Args:
        states: step -> state: the `states` of a training, or one member's of a fleet.
        names: the parameters to follow; all of two or more dimensions unless said.

    Returns:
        Over `step` and `layer`, which are the parameters' names and, last, `"all"`:

        - `magnitude`: the mean of |w|.
        - `signs_changed`: the share of weights whose sign differs from the start.
        - `signs_to_change`: the share whose sign differs from the end.
        - `flips_made`: of those whose sign at the end differs from the start, the share that differs now already; NaN
          where none does.
        - `from_start`, `from_end`: the distances ||w - w0|| and ||w - wT||.
        - `cosine`: between w and w0.
        - `path`: the sum of ||w_b - w_a|| over consecutive snapshots so far: the length of the path that training took
          if there is one of every step, and at least that of a shorter one if not.
        - `detour`: `path` over `from_start`, at least 1; NaN at the start.

    Raises:
        InputError: fewer than two snapshots, or names or shapes that they do not share.
    """
    import numpy
    import xarray

    steps = sorted(states)
    if len(steps) < 2:
        raise InputError(f"motion needs snapshots of two steps at least, not {len(steps)}: give States(...)")
    start, end = states[steps[0]], states[steps[-1]]
    if names is None:
        names = [name for name, value in start.items() if value.ndim >= 2 and value.is_floating_point()]
    if not names or (unknown := [name for name in names if name not in start]):
        raise InputError(
            f"the snapshots hold no {unknown[0]!r}" if names else "the snapshots hold no weights to follow"
        )
    for step, name in itertools.product(steps, names):
        if name not in states[step] or states[step][name].shape != start[name].shape:
            raise InputError(f"the snapshot of step {step} has no {name!r} of shape {tuple(start[name].shape)}")
    rows, before, path = [], start, torch.zeros(len(names) + 1, dtype=torch.float64)
    for step in steps:
        now = states[step]
        layers = [_sums(*(state[name] for state in (now, start, end, before))) for name in names]
        sums = torch.stack([*layers, torch.stack(layers).sum(0)])
        path = path + sums[:, _SUMS.index("step")].sqrt()
        rows.append(torch.cat([sums, path[:, None]], 1))
        before = now
    of = dict(zip((*_SUMS, "path"), torch.stack(rows).movedim(-1, 0).numpy(), strict=True))
    distance = of["from start"] ** 0.5
    with numpy.errstate(invalid="ignore", divide="ignore"):
        found = {
            "magnitude": of["magnitude"] / of["weights"],
            "signs_changed": of["changed"] / of["weights"],
            "signs_to_change": of["to change"] / of["weights"],
            "flips_made": of["changed for good"] / of["changed at the end"],
            "from_start": distance,
            "from_end": of["from end"] ** 0.5,
            "cosine": of["product"] / (of["square"] * of["square at start"]) ** 0.5,
            "path": of["path"],
            "detour": of["path"] / distance,
        }
    dims = ("step", "layer")
    return xarray.Dataset(
        {name: (dims, each) for name, each in found.items()}, {"step": steps, "layer": [*names, WHOLE]}
    )


_SUMS = (
    "weights", "magnitude", "square", "square at start", "product", "from start", "from end", "step", "changed",
    "to change", "changed at the end", "changed for good",
)  # fmt: skip


def _sums(now: Tensor, start: Tensor, end: Tensor, before: Tensor) -> Tensor:
    """Sums over one layer's weights, in the order of `_SUMS`; those over several layers are made by adding."""
    now, start, end, before = (state.detach().cpu().double().flatten() for state in (now, start, end, before))
    changed, at_end = now.sign() != start.sign(), end.sign() != start.sign()
    sums = (
        torch.ones_like(now), now.abs(), now**2, start**2, now * start, (now - start) ** 2, (now - end) ** 2,
        (now - before) ** 2, changed, now.sign() != end.sign(), at_end, at_end & changed,
    )  # fmt: skip
    return torch.stack([each.sum().double() for each in sums])
