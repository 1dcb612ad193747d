"""CNTK on CUDA, pooled and in single precision, by the Triton kernel of `triton_sums`."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .arcsine import ROUNDING, polynomials

if TYPE_CHECKING:
    from .cntk import Progress, Task, _Side

_PAIRS = 2**15  # in a launch: some 130 MB of partial sums of 32 x 32 images
_LARGEST = 32  # columns are a warp's threads, rows its registers


def unsuited(x: Tensor, task: Task) -> str | None:
    """Why the kernel cannot be used, or `None`."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if x.device.type != "cuda" and not interpreted:
        return f"it needs CUDA, and the images are on {x.device}"
    if x.dtype != torch.float32:
        return "it computes in float32: pass dtype=torch.float32"
    if not task.pooled or task.filter != 3:
        return "it knows pooling='gap' with filter=3 only"
    if max(x.shape[2:]) > _LARGEST:
        return f"it takes images up to {_LARGEST} x {_LARGEST}"
    return None


def kernel(one: _Side, two: _Side, task: Task, chunk: int | None, progress: Progress) -> Tensor:
    """(n1, n2) sums of Theta, of which only the upper triangle is filled in where both sides are the same."""
    from .triton_sums import WARP, sums

    n1, n2, (channels, height, width) = len(one.x), len(two.x), one.x.shape[1:]
    device, packed = one.x.device, WARP // width
    total = torch.zeros(n1, n2, dtype=torch.float64, device=device)
    arcsine, root = (tuple(each) for each in polynomials("float32"))
    slope = 1 / (math.pi * task.filter**2)
    pairs = n1 * (n1 + 1) // 2 if task.same else n1 * n2
    x2, q2 = (torch.cat([each, each], 2) for each in (two.x, two.q))
    done = 0
    with torch.cuda.device(device if device.type == "cuda" else -1):
        for rows, columns in _pairs(n1, n2, task.same, chunk or _PAIRS, device):
            blocks = -(-len(rows) // packed)
            out = torch.empty(blocks, height, WARP, device=device)
            sums[(height, blocks)](
                one.x, one.q, x2, q2, rows, columns, out, len(rows), task.depth, channels, slope * math.pi / 2,
                slope, height=height, width=width, circular=task.circular, arcsine=arcsine, root_of=root,
                top=1 - ROUNDING * float(np.finfo(np.float32).eps), num_warps=1,
            )  # fmt: skip
            found = out[:, :, : packed * width].double().unflatten(2, (packed, width)).sum((1, 3)).flatten()
            total[rows, columns] = found[: len(rows)]
            done += len(rows)
            progress(done, pairs)
    return total


def _pairs(n1: int, n2: int, same: bool, count: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of some pairs at a time, as tensors of 64 bits; of a symmetric matrix the upper triangle."""
    per = max(1, count // max(n2, 1))
    for start in range(0, n1, per):
        rows = torch.arange(start, min(start + per, n1), device=device)
        grid = torch.stack(torch.meshgrid(rows, torch.arange(n2, device=device), indexing="ij")).flatten(1)
        if same:
            grid = grid[:, grid[0] <= grid[1]]
        for some in grid.split(count, 1):
            yield some[0].contiguous(), some[1].contiguous()
