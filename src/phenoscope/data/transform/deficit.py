"""What is taken from data for a part of training."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import seeded
from ..noise import randomize

Deficit = Literal["blur", "flip", "labels", "noise"]


def deficit(
    data: tuple[Tensor, Tensor],
    kind: Deficit,
    *,
    factor: int | None = None,
    classes: int | None = None,
    generator: torch.Generator | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Data with one of the deficits of Achille, Rovere and Soatto, "Critical Learning Periods" (ICLR 2019, section 2).

    Args:
        data: images (N, C, H, W) or signals (N, C, L), and labels (N,).
        kind: "blur": averages over `factor` pixels in every direction, brought back to size by linear interpolation.
            "flip": upside down, signals back to front. "labels": every class is called by another one's name, a high
            level deficit. "noise": white noise of the inputs' mean and standard deviation instead of them.
        factor: of the blur; 4 for images and 8 for signals if nothing is said.
        classes: how many there are; one more than the highest label if nothing is said.
        generator: what draws the noise, or the new names: a random cycle, so that no class keeps its own.

    Returns:
        New inputs and labels; what a deficit does not concern is the same tensor.

    Raises:
        InputError: another kind, inputs that are neither images nor signals, a factor under 1 or over their size, or
            labels that are not classes.

    Examples:
        >>> x, y = torch.arange(8.0).reshape(1, 1, 8), torch.tensor([0])
        >>> deficit((x, y), "flip")[0].flatten().tolist()
        [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
        >>> deficit((x, y), "blur", factor=8)[0].flatten().tolist()
        [3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5]
    """
    x, y = data
    if kind == "noise":
        return randomize(data, "gaussian", generator=generator)
    if kind == "labels":
        return x, _renamed(y, classes, generator)
    if kind not in ("blur", "flip"):
        raise InputError(f'kind must be "blur", "flip", "labels" or "noise", not {kind!r}')
    if x.ndim not in (3, 4):
        raise InputError(f"{kind} needs images (N, C, H, W) or signals (N, C, L), not shape {tuple(x.shape)}")
    if kind == "flip":
        return x.flip(2), y
    factor = factor or {3: 8, 4: 4}[x.ndim]
    size = x.shape[2:]
    if not 1 <= factor <= min(size):
        raise InputError(f"factor must lie between 1 and the size of the inputs, {min(size)}, not {factor}")
    small = functional.interpolate(x, [max(1, round(length / factor)) for length in size], mode="area")
    mode = "linear" if x.ndim == 3 else "bilinear"
    return functional.interpolate(small, size, mode=mode, align_corners=False), y


def _renamed(y: Tensor, classes: int | None, generator: torch.Generator | int | None) -> Tensor:
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0:
        raise InputError(f"labels must be classes of shape (N,), not {y.dtype} of shape {tuple(y.shape)}")
    count = int(y.max()) + 1 if classes is None else classes
    if count < max(2, int(y.max()) + 1):
        raise InputError(f"labels go up to {int(y.max())}: names cannot be changed among {count} classes")
    draw = seeded(generator)
    order = torch.randperm(count, generator=draw, device=draw.device).to(y.device)
    names = torch.empty_like(order)
    names[order] = order.roll(1)
    return names.to(y.dtype)[y]
