"""The tangent kernel of an infinitely wide convolutional network, flattened or pooled at its head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from . import compiled

METHODS = ("auto", "compiled", "triton", "torch")
ELEMENTS = 2**22  # of one tensor in the plain method

Progress = Callable[[int, int], object]


def cntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int = 3,
    filter: int = 3,
    pooling: str = "gap",
    padding: str = "zero",
    dtype: torch.dtype = torch.float64,
    chunk: int | None = None,
    method: str = "auto",
    progress: Progress | None = None,
) -> Tensor:
    """The convolutional neural tangent kernel (CNTK) of ReLU networks, exactly, by the recursion over pairs of pixels.

    Sigma^0 = Theta^0 = S(x . x'), where S sums what lies within the filter around both pixels alike. Then for each of
    `depth` activations, with (u, v) Gaussian of covariance Sigma^(h-1), K = (2 / q^2) E relu(u) relu(v) and
    Kd = (2 / q^2) E relu'(u) relu'(v): Sigma^h = S(K) and Theta^h = S(Kd Theta^(h-1) + K), in the last layer without S.
    The kernel is the sum of Theta over equal pixels ("flatten") or its mean over all pairs of them ("gap")
    (Arora, Du, Hu et al., NeurIPS 2019, section 4 and appendix C). No 1/C is applied to the C input channels.

    S never mixes displacements i - i', j - j': "flatten" needs the displacement 0 only, while pooling takes
    depth (H W)^2 steps a pair of images. Of a symmetric matrix one half is computed.

    Args:
        x1: (n1, C, H, W) images.
        x2: (n2, C, H, W) images; `x1` if `None`.
        depth: convolutional layers, each with its ReLU.
        filter: the filter's side q, odd.
        pooling: "gap", global average pooling, or "flatten".
        padding: "zero", or "circular", with which the pooled kernel does not change when an image is rolled.
        dtype: float64, or float32: several times as fast, to about four digits.
        chunk: pairs of images at once in the methods "torch" and "triton"; by memory if `None`.
        method: "compiled" (CPU), "triton" (CUDA, float32, pooled, images up to 32 x 32), "torch" (anywhere; the
            slowest), or the first of these that suits.
        progress: called with the pairs done and their total, from time to time.

    Returns:
        (n1, n2), where the inputs are.

    Raises:
        InputError: images of other shapes, an even filter, one that circular padding would lay around the image twice,
            an unknown word, or a method that does not suit.

    Examples:
        >>> x = torch.ones(2, 1, 4, 4)
        >>> cntk(x, depth=1, padding="circular", pooling="gap")[0, 1].item()
        2.0
    """
    same = x2 is None
    x2 = x1 if x2 is None else x2
    _check(x1, x2, depth, filter, pooling, padding, dtype)
    task = Task(depth, filter, pooling == "gap", padding == "circular", same)
    # overall, the kernel goes as the square of the images' scale: about 1, it fits single precision
    scale = float(max(x1.abs().max(), x2.abs().max())) if x1.numel() and x2.numel() else 1.0
    scale = 2.0 ** round(math.log2(scale)) if 0 < scale < math.inf else 1.0
    sides = [_Side.of(x.detach().double() / scale, task, dtype) for x in ((x1,) if same else (x1, x2))]
    kernel = _chosen(method, sides[0].x, task)(sides[0], sides[-1], task, chunk, progress or _quiet)
    if same:
        kernel = kernel.triu() + kernel.triu(1).mT
    height, width = x1.shape[2:]
    return kernel * (scale**2 / ((height * width) ** 2 if task.pooled else 1))


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be computed: the sum over pixels, or over pairs of them if `pooled`; one half of it if `same`."""

    depth: int
    filter: int
    pooled: bool
    circular: bool
    same: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """Images (n, C, H, W) and, before each activation, their own variances (n, depth, H, W)."""

    x: Tensor
    q: Tensor

    @classmethod
    def of(cls, x: Tensor, task: Task, dtype: torch.dtype) -> _Side:
        q, found = x.square().sum(1), []
        for _ in range(task.depth):
            found.append(boxed(q, task, ((1,), (2,))))
            q = found[-1] / task.filter**2  # (2 / q^2) E relu(u)^2
        return cls(x.to(dtype).contiguous(), torch.stack(found, 1).to(dtype).contiguous())


def boxed(values: Tensor, task: Task, axes: tuple[tuple[int, ...], ...]) -> Tensor:
    """The sum within the filter: along one group of axes, all of which move together, and then along the other."""
    for together in axes:
        total, length = values.clone(), values.shape[together[0]]
        for by in range(1, task.filter // 2 + 1):
            for sign in (by, -by):
                if task.circular:
                    total += values.roll((sign,) * len(together), together)
                elif by < length:
                    to, start = total, values
                    for axis in together:
                        to = to.narrow(axis, max(sign, 0), length - by)
                        start = start.narrow(axis, max(-sign, 0), length - by)
                    to += start
        values = total
    return values


def _check(x1: Tensor, x2: Tensor, depth: int, filter: int, pooling: str, padding: str, dtype: torch.dtype) -> None:
    if x1.ndim != 4 or x2.ndim != 4 or x1.shape[1:] != x2.shape[1:] or 0 in x1.shape[1:]:
        raise InputError(f"images must be (n, C, H, W), all of one size, not {tuple(x1.shape)} and {tuple(x2.shape)}")
    if x1.device != x2.device:
        raise InputError(f"the images are on two devices, {x1.device} and {x2.device}")
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")
    if filter < 1 or filter % 2 == 0:
        raise InputError(f"filter must be odd and positive, not {filter}")
    for name, word, known in (("pooling", pooling, ("gap", "flatten")), ("padding", padding, ("zero", "circular"))):
        if word not in known:
            raise InputError(f"{name} must be {' or '.join(map(repr, known))}, not {word!r}")
    if padding == "circular" and filter > min(x1.shape[2:]):
        raise InputError(f"circular padding needs images no smaller than the filter, {filter}")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be torch.float32 or torch.float64, not {dtype}")


def _chosen(method: str, x: Tensor, task: Task) -> Callable[..., Tensor]:
    from . import cntk_plain

    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if method == "compiled" and not compiled.suits(x):
        raise InputError(f"method 'compiled' is for the CPU, but the images are on {x.device}")
    if method == "compiled" or (method == "auto" and compiled.suits(x)):
        from . import cntk_numba

        return cntk_numba.kernel
    if method == "torch":
        return cntk_plain.kernel
    from . import cntk_triton

    reason = cntk_triton.unsuited(x, task)
    if reason is None:
        return cntk_triton.kernel
    if method == "triton":
        raise InputError(f"method 'triton' does not suit: {reason}; take 'torch' or 'compiled'")
    return cntk_plain.kernel


def _quiet(done: int, total: int) -> Any:
    return None
