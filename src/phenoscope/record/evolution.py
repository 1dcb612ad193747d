"""Distance, changed and idle: how far each filter of a layer moved between two snapshots of its weight."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..core.errors import InputError
from .layers import Layer


@dataclasses.dataclass(frozen=True)
class Evolution:
    """What moved in one layer; every field is a float64 tensor with one value a filter.

    Attributes:
        distance: squared Euclidean distance, in squared units of the weight.
        distance_per_weight: `distance` over the number of entries of a filter, C W H.
        changed: share of entries that moved by more than the threshold.
        idle: share of channels in which no entry moved by more than the threshold.
    """

    distance: Tensor
    distance_per_weight: Tensor
    changed: Tensor
    idle: Tensor

    @property
    def layer_distance(self) -> Tensor:
        """D_t, equation 1: the mean of `distance` over filters."""
        return self.distance.mean()

    @property
    def layer_changed(self) -> Tensor:
        """S_t, equation 2: the mean of `changed` over filters."""
        return self.changed.mean()

    @property
    def layer_idle(self) -> Tensor:
        """Z_t, equation 3: the mean of `idle` over filters."""
        return self.idle.mean()


def evolution(
    before: Tensor, after: Tensor, threshold: float, *, filters: int = 0, channels: int = 1, groups: int = 1
) -> Evolution:
    """How far each filter moved from `before` to `after`.

    For a filter f of C channels of W H entries each, and its later state f':

    - distance = ||f' - f||_2^2
    - changed = #{entries with |f' - f| > tau} / (C W H)
    - idle = #{channels in which no entry has |f' - f| > tau} / C

    Their means over the filters are D_t, S_t and Z_t (Hu, Wang, Li and Huang, "How Functions Evolve in Deep
    Convolutional Neural Network", VCIP 2018, equations 1 to 3). The difference is formed in float32 (float64 for
    float64 weights; half precision is widened first), summed in float64. An entry that is NaN counts as changed.

    Args:
        before, after: two states of one weight, of the same shape; two or more dimensions.
        threshold: tau, in units of the weight.
        filters, channels: the axes of the weight that count filters and channels: 0 and 1 for a convolution or a
            linear layer, 1 and 0 for a transposed convolution.
        groups: as of the layer. It matters only where the channel axis is 0 (a transposed convolution, whose weight
            is (I, O / groups, *kernel)); otherwise the weight's channel axis already is I / groups.

    Raises:
        InputError: shapes that differ, fewer than two dimensions, a weight of whole numbers, a bad threshold or axis.

    Example:
        >>> import torch
        >>> before, after = torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)
        >>> after[0, 0] = 2.0
        >>> e = evolution(before, after, threshold=1.0)
        >>> e.distance.tolist(), e.idle.tolist()
        ([4.0, 0.0], [0.6666666666666666, 1.0])
    """
    if before.shape != after.shape:
        raise InputError(f"before and after differ in shape: {tuple(before.shape)} and {tuple(after.shape)}")
    if before.ndim < 2 or not before.is_floating_point() or not after.is_floating_point():
        raise InputError(
            f"a weight of floating point with two or more dimensions is needed, not {before.dtype} "
            f"of shape {tuple(before.shape)}"
        )
    axes = (filters % before.ndim, channels % before.ndim)
    if axes[0] == axes[1]:
        raise InputError("filters and channels must be two different axes")
    if before.shape[axes[1]] % groups:
        raise InputError(f"{before.shape[axes[1]]} channels do not divide into {groups} groups")
    check_threshold(threshold)
    layer = Layer("weight", "weight", "", tuple(before.shape), *axes, groups=groups)
    distance, changed, moved = compare(layer.blocks(before), layer.blocks(after), threshold)
    channel_count, entries = layer.entries
    size = channel_count * entries
    return Evolution(
        distance, distance / size, changed.double() / size, (channel_count - moved).double() / channel_count
    )


def check_threshold(threshold: float) -> None:
    """A threshold is a number, not negative; infinity is allowed."""
    if not threshold >= 0:
        raise InputError(f"threshold must be a number of at least 0, not {threshold!r}")


def compare(before: Tensor, after: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of squared differences (float64), entries and channels that moved (int64), over filters.

    The definition in plain torch, which every faster pass must match.

    Args:
        before, after: views (groups, filters, channels, *entries), as `Layer.blocks` gives.
    """
    wide = torch.float64 if torch.float64 in (before.dtype, after.dtype) else torch.float32
    difference = (
        (after.to(wide) - before.to(wide)).flatten(3)
        if before.ndim > 3
        else (after.to(wide) - before.to(wide))[..., None]
    )
    moved = ~(difference.abs().double() <= threshold)  # NaN has moved
    total = difference.double().square_().sum((2, 3))
    return total.flatten(), moved.sum((2, 3)).flatten(), moved.any(3).sum(2).flatten()
