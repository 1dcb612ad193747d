"""Expectations of an activation, and of products of two, under Gaussian inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...core.errors import InputError
from .activations import Activation, Function, activation
from .hermite import series
from .quadrature import panels

Number = float | Tensor
_ELEMENTS = 2**22  # evaluated at once
_REACH = 9.0  # standard deviations; what lies outside weighs less than 1e-18
_AROUND_ZERO = (-8.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # where activations bend


def gaussian_moments(
    act: str | Function | Activation,
    variance: Number,
    covariance: Number | None = None,
    variance2: Number | None = None,
    *,
    derivative: bool = False,
    power: int = 1,
) -> Tensor:
    """E f(u)^power, or E f(u) f(v), for Gaussian u and v of mean zero, where f is an activation or its derivative.

    Closed forms for what is linear on either side of zero (arc-cosine kernels: Cho and Saul, NeurIPS 2009) and for erf
    (Williams, NeurIPS 1996). With c = cov(u, v) / sqrt(var u var v), E relu(u) relu(v) = sqrt(var u var v)
    (sqrt(1 - c^2) + (pi - arccos c) c) / (2 pi) and E erf(u) erf(v) = (2 / pi) arcsin(2 cov / sqrt((1 + 2 var u)
    (1 + 2 var v))). For all others, the series in Hermite polynomials (`hermite.series`) where it has converged, and
    else Gauss-Legendre quadrature on panels that end at the kinks and narrow as the variance grows: relative errors of
    about 1e-10 for smooth functions.

    Args:
        act: an activation (`theory.activation`).
        variance: of u; a number or a tensor.
        covariance: of u and v; without it the result is E f(u)^power.
        variance2: of v; the same as of u if `None`.
        derivative: take the activation's derivative in place of the activation.
        power: of f(u), where there is no covariance.

    Returns:
        A float64 tensor of the arguments' common shape.

    Raises:
        InputError: a negative or unknown variance, a covariance larger than the variances allow, or a power below 1.

    Examples:
        >>> gaussian_moments("relu", 2.0, power=2).item()
        1.0
    """
    act = activation(act)
    if power < 1 or (power != 1 and covariance is not None):
        raise InputError(f"power must be at least 1, and 1 where there is a covariance, not {power!r}")
    q1 = _float64(variance)
    _check_variance(q1)
    if covariance is None:
        if power == 2 and (act.slopes or act.is_erf):
            return _closed(act, q1, q1, torch.ones_like(q1), derivative)
        return _single(act, q1, derivative, power)
    q2 = q1 if variance2 is None else _float64(variance2).to(q1.device)
    _check_variance(q2)
    k = _float64(covariance).to(q1.device)
    scale = (q1 * q2).sqrt()
    if (k.abs() > scale * (1 + 1e-6) + 1e-300).any():
        raise InputError("a covariance is larger than the square root of the product of the two variances")
    c = torch.where(scale > 0, k / scale, torch.zeros_like(k)).clamp(-1, 1)
    if act.slopes or act.is_erf:
        return _closed(act, q1, q2, c, derivative)
    if not c.numel():
        return torch.zeros(torch.broadcast_shapes(q1.shape, q2.shape, c.shape), dtype=c.dtype, device=c.device)
    found, trusted = series(act, q1, q2, c, derivative=derivative)
    if not trusted.all():
        rest = ~trusted
        a, b, k = (part.expand(found.shape)[rest] for part in (q1, q2, c))
        found[rest] = _pair(act, a, b, k, derivative)
    return found.view(torch.broadcast_shapes(q1.shape, q2.shape, c.shape))


def _closed(act: Activation, q1: Tensor, q2: Tensor, c: Tensor, derivative: bool) -> Tensor:
    scale = (q1 * q2).sqrt()
    if act.is_erf:
        a, k = (1 + 2 * q1) * (1 + 2 * q2), 2 * c * scale
        return 4 / math.pi / (a - k**2).sqrt() if derivative else 2 / math.pi * torch.asin(k / a.sqrt())
    assert act.slopes is not None
    below, above = act.slopes
    even, odd = ((above + below) / 2) ** 2, ((above - below) / 2) ** 2  # f(x) = (sum x + difference |x|) / 2
    if derivative:
        return even + odd * (2 / math.pi) * torch.asin(c)
    return scale * (even * c + odd * (2 / math.pi) * ((1 - c**2).sqrt() + c * torch.asin(c)))


def _single(act: Activation, q: Tensor, derivative: bool, power: int) -> Tensor:
    f = act.derivative if derivative else act.function

    def some(flat: Tensor) -> Tensor:
        root = flat.sqrt()[:, None]
        z, weight = panels(root, torch.zeros_like(root), _bends(act, root), width=0.5, nodes=16, reach=_REACH)
        return (weight * f(root * z) ** power).sum(1)

    return _in_chunks(some, 1200, q)


def _pair(act: Activation, q1: Tensor, q2: Tensor, c: Tensor, derivative: bool) -> Tensor:
    """Integrate over v given u, then over u: v = sqrt(q2) (c z1 + sqrt(1 - c^2) z2)."""
    f = act.derivative if derivative else act.function

    def some(a: Tensor, b: Tensor, corr: Tensor) -> Tensor:
        root1, root2 = a.sqrt()[:, None], b.sqrt()[:, None]
        both = _bends(act, root1)  # of u, and of v at its mean given u
        both = torch.cat([both, both * root1 / (root2 * corr[:, None]).abs().clamp_min(1e-12)], 1)
        z1, weight1 = panels(root1, torch.zeros_like(root1), both, width=1.0, nodes=8, reach=_REACH)
        mean = root2 * corr[:, None] * z1
        spread = (root2 * (1 - corr[:, None] ** 2).sqrt()).expand_as(mean)
        mean, spread = mean.reshape(-1, 1), spread.reshape(-1, 1)
        z2, weight2 = panels(spread, mean, _bends(act, spread), width=1.0, nodes=8, reach=_REACH)
        inner = (weight2 * f(mean + spread * z2)).sum(1)
        return (weight1 * f(root1 * z1) * inner.view_as(z1)).sum(1)

    return _in_chunks(some, 80_000, q1, q2, c)


def _bends(act: Activation, like: Tensor) -> Tensor:
    return torch.tensor([*_AROUND_ZERO, *act.kinks]).to(like).expand(len(like), -1)


def _in_chunks(function: Callable[..., Tensor], cost: int, *arguments: Tensor) -> Tensor:
    flat = [argument.reshape(-1) for argument in arguments]
    parts = zip(*(each.split(max(1, _ELEMENTS // cost)) for each in flat), strict=True)
    return torch.cat([function(*part) for part in parts]).view_as(arguments[0])


def _float64(value: Number) -> Tensor:
    return value.detach().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _check_variance(q: Tensor) -> None:
    if not (torch.isfinite(q) & (q >= 0)).all():
        raise InputError("a variance must be finite and not negative")
