"""A convolution's sum over taps on the kernels of every pair of positions, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import share_out

_ALONE = 100_000  # entries below which threads cost more than they bring


def box_sum(
    x: Tensor, out: Tensor, window: tuple[tuple[int, ...], ...], *, scale: float, shift: float, plus: Tensor | None
) -> None:
    """out <- scale (sum over taps of x, at both examples' positions shifted together) + shift [+ plus].

    Args:
        x: (n1, H, W, n2, H, W), contiguous, float32 or float64.
        out: (n1, P, Q, n2, P, Q), contiguous; overwritten.
        window: taps, stride, dilation and zeros before the first position, of both axes.
        scale, shift: numbers.
        plus: of the shape of `out`.
    """
    from .numba_box import box

    source, target = x.detach().numpy(), out.detach().numpy()
    other = target if plus is None else plus.detach().numpy()
    kind: Any = np.dtype(source.dtype).type

    def work(first: int, last: int) -> None:
        box(source, target, other, plus is not None, first, last, *window, kind(scale), kind(shift))

    share_out(work, len(out) * out.shape[1], threads=torch.get_num_threads() if out.numel() > _ALONE else 1)
