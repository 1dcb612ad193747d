"""Move the pixels of images: affine and projective resampling."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError


def warp(x: Tensor, matrix: Tensor, *, padding: Literal["border", "zeros", "reflection"] = "border") -> Tensor:
    """Resample images bilinearly at the places that a matrix names.

    What stands at (u, v) afterwards stood at `A (u, v) + t` before, where a matrix is `[A | t]`; with a third row
    `(g, h, i)` both are divided by `g u + h v + i`. Places are in pixels, first across and then down, from the center
    of the image, so that the identity gives the image back.

    Args:
        x: images (N, C, H, W), floating point.
        matrix: (N, 2, 3), or (N, 3, 3) for a projective map; or one for all, without N.
        padding: what lies beyond the edge.

    Returns:
        Images (N, C, H, W).

    Raises:
        InputError: something else than images, or matrices of another shape.

    Examples:
        >>> shift = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> warp(torch.tensor([[[[1.0, 2.0, 3.0]]]]), shift)
        tensor([[[[2., 3., 3.]]]])
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"warp moves images (N, C, H, W) of floating point, not {x.dtype} of shape {tuple(x.shape)}")
    if matrix.shape[-2:] not in ((2, 3), (3, 3)) or matrix.shape[:-2] not in ((), (len(x),)):
        raise InputError(f"matrix must be ({len(x)}, 2, 3) or ({len(x)}, 3, 3), not {tuple(matrix.shape)}")
    height, width = x.shape[2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
    v, u = torch.meshgrid(down, across, indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)], -1).reshape(-1, 3)
    source = points @ matrix.to(x).expand(len(x), *matrix.shape[-2:]).transpose(1, 2)
    if matrix.shape[-2] == 3:
        source = source[..., :2] / source[..., 2:]
    # with align_corners=False, grid_sample puts -1 and 1 half a pixel outside the first and the last center
    grid = source * source.new_tensor([2 / width, 2 / height])
    return functional.grid_sample(
        x, grid.reshape(-1, height, width, 2), mode="bilinear", padding_mode=padding, align_corners=False
    )
