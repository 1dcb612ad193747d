"""Straight lines between two states of a network, and the barrier on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..data.batches import Data
from ..train.members import Fleet
from .along import at_once, has_statistics, measured
from .products import Loss

if TYPE_CHECKING:
    import xarray


@dataclasses.dataclass(frozen=True, eq=False)
class Barrier:
    """What lies between two networks.

    Attributes:
        height: the largest value of the curve minus the mean of its ends.
        curve: `error` or `loss` over `alpha`, from the first network at 0 to the second at 1.
        interpolated: the same with the running statistics of batch normalization interpolated as the weights are; only
            where they have been recomputed.
    """

    height: float
    curve: xarray.DataArray
    interpolated: Barrier | None = None


def interpolate(
    state_a: Mapping[str, Tensor], state_b: Mapping[str, Tensor], alphas: Sequence[float] | Tensor
) -> dict[str, Tensor]:
    """The states (1 - alpha) a + alpha b, name by name.

    Args:
        state_a: as `state_dict` gives it.
        state_b: of the same names and shapes.
        alphas: (A,) where on the line; 0 is exactly `a`, 1 exactly `b`.

    Returns:
        Name -> (A, ...). Whole numbers, such as counts of batches, are those of `a`.

    Raises:
        InputError: states of different names or shapes, or no alphas.

    Examples:
        >>> interpolate({"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}, [0.0, 0.25])["w"].tolist()
        [[0.0, 2.0], [1.0, 2.0]]
    """
    places = torch.as_tensor(alphas, dtype=torch.float64)
    if places.ndim != 1 or not len(places):
        raise InputError(f"alphas are a sequence of at least one number, not of shape {tuple(places.shape)}")
    for name in {**state_a, **state_b}:
        if name not in state_a or name not in state_b or state_a[name].shape != state_b[name].shape:
            raise InputError(f"the states differ in {name!r}: they are not of one architecture")
    found = {}
    for name, start in state_a.items():
        start, end = start.detach(), state_b[name].detach()
        if start.is_floating_point() or start.is_complex():
            share = places.to(start.device, start.real.dtype).view(-1, *[1] * start.ndim)
            found[name] = torch.lerp(start[None], end.to(start)[None], share.to(start.dtype))
        else:
            found[name] = start.expand(len(places), *start.shape).clone()
    return found


def linear_barrier(
    model_a: nn.Module,
    model_b: nn.Module,
    data: Data,
    *,
    points: int = 30,
    metric: Literal["error", "loss"] = "error",
    loss_fn: Loss = functional.cross_entropy,
    refresh_bn: bool = True,
    train: Data | None = None,
) -> Barrier:
    """The height of the barrier on the straight line between two networks (Frankle, Dziugaite, Roy and Carbin, 2020).

    max over alpha of E(alpha) - (E(0) + E(1)) / 2, where E is measured with the weights (1 - alpha) a + alpha b, the
    networks in evaluation mode. Below 0.02 of error the paper calls a pair linearly connected. Batch-norm statistics of
    weights in between are neither network's: they are recomputed by going through the training data at every point.
    Hidden units are compared as they are numbered: networks that differ by a permutation of them are apart.

    Args:
        model_a: a network; left as it was found.
        model_b: another one of the same architecture.
        data: what to measure on: a pair of tensors, or a loader that can be gone through again and again.
        points: how many, evenly spaced, with both ends.
        metric: the share of wrong decisions, or the mean of `loss_fn`.
        loss_fn: from outputs and labels to their mean loss.
        refresh_bn: whether to recompute batch-norm statistics; otherwise they are interpolated as the weights are.
        train: what to recompute them on, the training data; `data` if nothing is said.

    Raises:
        InputError: networks of different architectures, fewer than two points, or data without classes for "error".
    """
    if metric not in ("error", "loss"):
        raise InputError(f'metric must be "error" or "loss", not {metric!r}')
    found = curves(
        Fleet.of([model_a, model_b]), {"data": data}, points=points, loss_fn=loss_fn, refresh_bn=refresh_bn,
        train=data if train is None else train,
    )[metric].sel(part="data", drop=True)  # fmt: skip
    if bool(found.isnull().all()):
        raise InputError(f"{metric} is not a number anywhere: metric='error' needs scores (N, C) and classes (N,)")
    barriers = []
    for kind in found["statistics"].values:
        curve = found.sel(statistics=kind, drop=True)
        barriers.append(Barrier(float(height(curve)), curve))
    return barriers[0] if len(barriers) == 1 else dataclasses.replace(barriers[0], interpolated=barriers[1])


def curves(
    ends: Fleet, parts: Mapping[str, Data], *, points: int, loss_fn: Loss, refresh_bn: bool, train: Data
) -> xarray.Dataset:
    """`error` and `loss` over `statistics`, `part` and `alpha`, on the line from a fleet's first member to its second.

    `statistics` is "recomputed" and "interpolated" where a network has batch normalization to recompute, otherwise
    "interpolated" alone.
    """
    import xarray

    if points < 2:
        raise InputError(f"a line needs at least 2 points, not {points}")
    model, alphas = ends[0], torch.linspace(0, 1, points, dtype=torch.float64)
    stacked = {**ends.parameters, **ends.buffers}
    first, last = ({name: value[place] for name, value in stacked.items()} for place in (0, -1))
    kinds = ["recomputed", "interpolated"] if refresh_bn and has_statistics(model) else ["interpolated"]
    found = []
    for kind in kinds:
        line = (interpolate(first, last, some) for some in alphas.split(at_once(model)))
        refresh = train if kind == "recomputed" else None
        found.append(measured(model, line, list(parts.values()), loss_fn=loss_fn, refresh=refresh))
    values = torch.stack(found, 1).numpy()
    dims = ("statistics", "part", "alpha")
    return xarray.Dataset(
        {"error": (dims, values[0]), "loss": (dims, values[1])},
        {"statistics": kinds, "part": list(parts), "alpha": alphas.numpy()},
    )


def height(curve: xarray.DataArray) -> xarray.DataArray:
    """The largest value over `alpha` minus the mean of the ends."""
    return curve.max("alpha") - (curve.isel(alpha=0, drop=True) + curve.isel(alpha=-1, drop=True)) / 2
