"""The balls that attacks stay in: projections onto them, random points of them, steepest steps in them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import InputError

NORMS = ("inf", "2", "1")
Clip = tuple[float, float] | None


def project(delta: Tensor, *, eps: float, norm: str = "inf") -> Tensor:
    """The nearest point, in Euclidean distance, of the ball of radius `eps`, for each example.

    For the 1-norm: soft thresholding at the level that the sorted absolute values give (Duchi, Shalev-Shwartz, Singer
    and Chandra, ICML 2008, figure 1).

    Args:
        delta: perturbations (N, ...).
        eps: the radius.
        norm: "inf", "2" or "1", over all axes but the first.

    Returns:
        Perturbations (N, ...) whose norm is at most `eps`.

    Examples:
        >>> project(torch.tensor([[3.0, 4.0]]), eps=1.0, norm="2")
        tensor([[0.6000, 0.8000]])
    """
    _known(norm)
    if norm == "inf":
        return delta.clamp(-eps, eps)
    flat = delta.flatten(1)
    if norm == "2":
        length = flat.norm(dim=1, keepdim=True)
        return (flat * (eps / length.clamp_min(_tiny(flat))).clamp(max=1)).reshape(delta.shape)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    excess = (ordered.cumsum(1) - eps) / count
    # the largest number of coordinates that stay above their threshold
    level = excess.gather(1, ((ordered > excess).sum(1, keepdim=True) - 1).clamp_min(0))
    return (flat.sign() * (size - level.clamp_min(0)).clamp_min(0)).reshape(delta.shape)


def random_start(x: Tensor, *, eps: float, norm: str = "inf", generator: torch.Generator | None = None) -> Tensor:
    """A random point of the ball around zero for each example: uniform in it.

    Of the 2-norm: a Gaussian direction at radius `eps u^(1/D)`; of the 1-norm: exponential variates with random signs,
    divided by the sum of one more of them.

    Args:
        x: examples (N, ...), whose shape, device and dtype the points get.
        eps: the radius.
        norm: "inf", "2" or "1".
        generator: what draws. `None` draws from torch's own generator, in a way that `torch.func.vmap` understands.
    """
    _known(norm)
    if norm == "inf":
        return (2 * uniform(x, generator) - 1) * eps
    one = x.flatten(1)[:, :1]
    if norm == "2":
        direction = normal(x, generator).flatten(1)
        radius = eps * uniform(one, generator) ** (1 / direction.shape[1])
        return (direction * radius / direction.norm(dim=1, keepdim=True).clamp_min(_tiny(direction))).reshape(x.shape)
    size = -torch.log1p(-uniform(x.flatten(1), generator))
    rest = -torch.log1p(-uniform(one, generator))
    sign = torch.where(uniform(x.flatten(1), generator) < 0.5, -1.0, 1.0).to(x.dtype)
    return (eps * sign * size / (size.sum(1, keepdim=True) + rest).clamp_min(_tiny(size))).reshape(x.shape)


def steepest(gradient: Tensor, x: Tensor, *, norm: str = "inf", clip: Clip = None) -> Tensor:
    """The step of length 1 in the norm that raises a linear function most, for each example.

    Its sign for the inf-norm, the unit vector along it for the 2-norm, and for the 1-norm the one coordinate with the
    largest slope among those that `clip` still lets move. Where the gradient is zero or not a number there is no step.

    Args:
        gradient: (N, ...).
        x: where it was taken (N, ...).
        norm: "inf", "2" or "1".
        clip: the range of the data.
    """
    gradient = gradient.nan_to_num(0.0)
    if norm == "inf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "2":
        # divided by its largest entry first: squares of the tiny slopes of a confident network would underflow
        flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(_tiny(flat))
        return (flat / flat.norm(dim=1, keepdim=True).clamp_min(_tiny(flat))).reshape(gradient.shape)
    slope = flat
    if clip is not None:
        at = x.flatten(1)
        stuck = ((slope > 0) & (at >= clip[1])) | ((slope < 0) & (at <= clip[0]))
        slope = torch.where(stuck, 0, slope)
    largest = slope.abs().argmax(1, keepdim=True)
    chosen = torch.arange(flat.shape[1], device=flat.device) == largest
    return (chosen * slope.sign()).reshape(gradient.shape)


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers from [0, 1), shaped like a tensor."""
    if generator is None:
        return torch.rand_like(like)
    drawn = torch.rand(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, shaped like a tensor."""
    if generator is None:
        return torch.randn_like(like)
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _known(norm: str) -> None:
    if norm not in NORMS:
        raise InputError(f"there is no norm {norm!r} here; norms are {', '.join(map(repr, NORMS))}")


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
