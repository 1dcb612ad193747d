"""Which input stands for absence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InputError

Baseline = float | Tensor | str


def baseline_for(x: Tensor, baseline: Baseline) -> Tensor:
    """The baselines (N, ...) of inputs (N, ...).

    Args:
        x: inputs.
        baseline: a number; a tensor that broadcasts against `x`; "mean", every input's own mean over all axes but
            the channels; or "blur", images under a Gaussian whose deviation is an eighth of their shorter side.

    Raises:
        InputError: a tensor that does not fit, another word, or "blur" of something that is no image.
    """
    if isinstance(baseline, str):
        if baseline == "mean":
            axes = tuple(range(2, x.ndim)) if x.ndim > 2 else (1,)
            return x.mean(axes, keepdim=True).expand_as(x)
        if baseline == "blur":
            return _blurred(x)
        raise InputError(f'baseline must be a number, a tensor, "blur" or "mean", not {baseline!r}')
    if not isinstance(baseline, Tensor):
        return torch.full_like(x, float(baseline))
    try:
        return baseline.detach().to(x.device, x.dtype).broadcast_to(x.shape).clone()
    except RuntimeError:
        raise InputError(
            f"baseline has shape {tuple(baseline.shape)}, which does not fit inputs of shape {tuple(x.shape)}"
        ) from None


def _blurred(x: Tensor) -> Tensor:
    if x.ndim != 4:
        raise InputError(f'baseline="blur" needs images (N, C, H, W), not {tuple(x.shape)}')
    sigma = max(min(x.shape[2:]) / 8, 0.5)
    radius = min(round(3 * sigma), min(x.shape[2:]) - 1)  # reflecting cannot pad by more
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(x.shape[1], 1)
    padded = functional.pad(x, (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded, kernel[:, None, :, None], groups=x.shape[1])
    return functional.conv2d(rows, kernel[:, None, None, :], groups=x.shape[1])
