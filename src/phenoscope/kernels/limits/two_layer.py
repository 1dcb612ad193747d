"""The Gram matrix of an infinitely wide two-layer ReLU network, and what follows from it alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from ...data.geometry import separation
from ..solve import factor
from .result import LimitKernels

Gram = Tensor | Callable[[Tensor], LimitKernels]
_UNIT = 1e-5  # how far a norm may be from 1: what single precision leaves
_NEAR = 1e-3  # of a cosine to 1 or -1, where its arc is taken from differences
_SINGULAR = 1e-12  # of the largest eigenvalue: zero but for rounding


@dataclasses.dataclass(frozen=True)
class ConvergenceCertificate:
    """What theory promises of gradient descent on a two-layer ReLU network, next to what it asks for.

    Attributes:
        smallest, largest: eigenvalues of the infinite-width Gram matrix.
        lr: a rate that is used in practice, 0.5 / largest.
        factor: by how much the squared residual shrinks in a step, at least, at that rate: 1 - lr smallest / 2.
        theorem_lr: smallest / n^2, up to a constant: the rate that the theorem asks for.
        theorem_width: n^6 / (smallest^4 delta^3), up to a constant: the width that it asks for.
        radius: how far a hidden unit's weights move at most, 4 sqrt(n) |y - f_0| / (sqrt(width) smallest).
        flips: the share of (unit, input) pairs that change sides, at most about 2 radius / sqrt(2 pi).
        pair: the two inputs that point most nearly the same way.
        angle: between them, in radians.
    """

    smallest: float
    largest: float
    lr: float
    factor: float
    theorem_lr: float
    theorem_width: float
    radius: float
    flips: float
    pair: tuple[int, int]
    angle: float


def two_layer_gram(x1: Tensor, x2: Tensor | None = None, *, normalize: bool = False) -> Tensor:
    """H_ij = x_i.x_j (pi - arccos x_i.x_j) / (2 pi) for inputs of norm 1.

    The tangent kernel of f(x) = sum_r a_r relu(w_r.x) / sqrt(m) with w_r ~ N(0, I) and fixed a_r = -1 or 1 as m grows:
    E x_i.x_j 1[w.x_i >= 0, w.x_j >= 0] (Du, Zhai, Poczos and Singh, ICLR 2019, definition 3.1; Arora, Du, Hu, Li and
    Wang, ICML 2019, equation 4). It is positive definite unless two inputs point the same way. Angles near 0 and pi are
    taken from differences of the inputs, so that nearly parallel pairs keep all digits.

    Args:
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        normalize: bring inputs to norm 1; otherwise other norms are refused, because the formula is not theirs.

    Returns:
        (n1, n2), float64, where the inputs are.

    Raises:
        InputError: inputs that are not of norm 1 (to 1e-5), or with `normalize` zero; inputs of different sizes.

    Examples:
        >>> two_layer_gram(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        tensor([[0.5000, 0.0000, -0.0000],
                [0.0000, 0.5000, 0.0000],
                [-0.0000, 0.0000, 0.5000]], dtype=torch.float64)
    """
    a = _unit(x1, normalize)
    b = a if x2 is None else _unit(x2, normalize)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"the two sets of inputs have {a.shape[1]} and {b.shape[1]} features")
    cosine = (a @ b.T).clamp_(-1, 1)
    arc = cosine.arccos()
    i, j = (cosine.abs() > 1 - _NEAR).nonzero(as_tuple=True)
    for rows, columns in zip(i.split(2**20 // a.shape[1] + 1), j.split(2**20 // a.shape[1] + 1), strict=True):
        u, v = a[rows], b[columns]
        close = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
        arc[rows, columns], cosine[rows, columns] = close, close.cos()
    return cosine.mul_(math.pi - arc).div_(2 * math.pi)


def label_complexity(x: Tensor, y: Tensor, *, kernel: Gram | None = None) -> Tensor:
    """sqrt(2 y' H^-1 y / n): how hard labels are to learn, from data alone.

    With a probability that grows with n and m it bounds the expected loss (0-1, or any 1-Lipschitz one up to 1) of a
    wide two-layer ReLU network that descent has fitted to them, up to terms in 1/sqrt(n) (Arora, Du, Hu, Li and Wang,
    ICML 2019, theorem 5.1).

    Args:
        x: (n, ...) inputs; of norm 1 where `kernel` is `None`.
        y: (n,) labels from -1 to 1, or (n, L): L labelings, each for itself. Of a network with C outputs that share a
            kernel, one-hot labels are C labelings, and their squares add up.
        kernel: the Gram matrix (n, n), such as `empirical_ntk(model, x, outputs="trace")`, or a function that gives
            kernels of `x`, whose `ntk` is taken; that of a two-layer ReLU network, `two_layer_gram`, if `None`.

    Returns:
        A number, or (L,); float64.

    Raises:
        InputError: a matrix that is singular (the message names the inputs that are most nearly parallel), or shapes
            that do not match.

    Examples:
        >>> round(label_complexity(torch.eye(3), torch.tensor([1.0, -1.0, 1.0])).item(), 9)
        2.0
    """
    if kernel is None:
        gram = two_layer_gram(x)
    else:
        gram = kernel.detach().double() if isinstance(kernel, Tensor) else kernel(x).ntk.double()
    if not 1 <= y.ndim <= 2 or len(y) != len(x) or gram.shape != (len(x), len(x)):
        raise InputError(
            f"{len(x)} inputs need (n,) or (n, L) labels and an (n, n) matrix, not {tuple(y.shape)} and "
            f"{tuple(gram.shape)}"
        )
    labels = y.detach().to(gram).reshape(len(y), -1)
    if not torch.isfinite(labels).all():
        raise InputError("the labels have entries that are not finite")
    _regular(torch.linalg.eigvalsh(gram), x)  # Cholesky may pass over a zero that rounding has lifted
    value = (2 * factor(gram).half(labels).square().sum(0) / len(y)).sqrt()
    return value.reshape(y.shape[1:])


def polynomial_complexity(
    alpha: Sequence[float] | Tensor, beta: Sequence[Sequence[float]] | Tensor, power: Sequence[int], *, n: int
) -> float:
    """The most that `label_complexity` can be on n labels y = sum_j alpha_j (beta_j.x)^p_j.

    sqrt(2 / n) 3 sum_j p_j |alpha_j| |beta_j|^p_j (Arora, Du, Hu, Li and Wang, ICML 2019, theorem 6.1): such functions
    can be learned. Odd powers beyond the first cannot be by this kernel, because the network has no bias.

    Args:
        alpha: (J,) factors.
        beta: (J, d) directions.
        power: (J,) powers, each 1 or even.
        n: number of examples.

    Raises:
        InputError: other powers, or sizes that do not match.

    Examples:
        >>> polynomial_complexity([1.0], [[3.0, 4.0]], [1], n=2)
        15.0
    """
    factors, directions = torch.as_tensor(alpha, dtype=torch.float64), torch.as_tensor(beta, dtype=torch.float64)
    if factors.ndim != 1 or directions.ndim != 2 or not len(factors) == len(directions) == len(power):
        raise InputError("alpha, beta and power must have one entry for each term: (J,), (J, d) and (J,)")
    for p in power:
        if p != 1 and (p < 1 or p % 2):
            raise InputError(f"powers must be 1 or even, not {p}: the network has no bias")
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
    powers = torch.as_tensor(list(power), dtype=torch.float64)
    return 3 * math.sqrt(2 / n) * float((powers * factors.abs() * directions.norm(dim=1) ** powers).sum())


def convergence_certificate(
    x: Tensor, y: Tensor, *, width: int, outputs: Tensor | None = None, delta: float = 0.1
) -> ConvergenceCertificate:
    """What is proven of gradient descent on sum (f - y)^2 / 2 over the first layer of a two-layer ReLU network.

    From a wide enough start, with probability 1 - delta, the squared residual after k steps is at most
    (1 - lr lambda_0 / 2)^k times that of the start, lambda_0 the smallest eigenvalue of the infinite-width Gram matrix,
    and no hidden unit leaves a small ball around its start (Du, Zhai, Poczos and Singh, ICLR 2019, theorem 4.1 and
    corollary 4.1). The width that the theorem asks for is far beyond any that is used, and is given as it is.

    Args:
        x: (n, ...) inputs of norm 1.
        y: (n,) labels.
        width: hidden units.
        outputs: (n,) outputs at the start; without them their expectation, |y - f_0|^2 = |y|^2 + n / 2, is taken.
        delta: probability with which it may fail.

    Raises:
        InputError: two inputs that point the same way, inputs that are not of norm 1, or a number out of range.

    Examples:
        >>> found = convergence_certificate(torch.eye(4), torch.ones(4), width=1024)
        >>> found.smallest, found.lr, found.factor
        (0.5, 1.0, 0.75)
    """
    n = len(x)
    if width < 1 or not 0 < delta < 1:
        raise InputError(f"width must be at least 1 and delta between 0 and 1, not {width} and {delta}")
    if n < 2:
        raise InputError(f"a certificate needs at least two inputs, not {n}")
    for name, values in (("y", y), *((("outputs", outputs),) if outputs is not None else ())):
        if values.numel() != n or not torch.isfinite(values).all():
            raise InputError(f"{name} must be {n} finite numbers; its shape is {tuple(values.shape)}")
    eigenvalues = torch.linalg.eigvalsh(two_layer_gram(x))
    _regular(eigenvalues, x)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    target = y.detach().double().flatten()
    start = target.square().sum() + n / 2 if outputs is None else (target - outputs.to(target).flatten()).square().sum()
    lr = 0.5 / largest
    radius = 4 * math.sqrt(n) * float(start.sqrt()) / (math.sqrt(width) * smallest)
    flips = min(1.0, 2 * radius / math.sqrt(2 * math.pi))
    closest = separation(x, opposite=False)
    return ConvergenceCertificate(
        smallest=smallest, largest=largest, lr=lr, factor=1 - lr * smallest / 2, theorem_lr=smallest / n**2,
        theorem_width=n**6 / (smallest**4 * delta**3), radius=radius, flips=flips,
        pair=(closest.i, closest.j), angle=closest.angle,
    )  # fmt: skip


def _unit(x: Tensor, normalize: bool) -> Tensor:
    if x.ndim < 2 or not len(x):
        raise InputError(f"inputs must be (n, ...) with at least one; their shape is {tuple(x.shape)}")
    flat = x.detach().flatten(1).double()
    norms = flat.norm(dim=1, keepdim=True)
    bad = ~(torch.isfinite(norms) & ((norms > 0) if normalize else ((norms - 1).abs() <= _UNIT)))
    if bad.any():
        number = int(bad.flatten().nonzero()[0])
        hint = (
            "it has no direction" if normalize else "the formula holds for norm 1: pass normalize=True, or divide by it"
        )
        raise InputError(f"input {number} has norm {float(norms[number]):.6g}; {hint}")
    return flat / norms


def _regular(eigenvalues: Tensor, x: Tensor) -> None:
    """Refuse a matrix that is singular but for rounding."""
    if float(eigenvalues[0]) > _SINGULAR * float(eigenvalues[-1]):
        return
    closest = separation(x, opposite=False)
    raise InputError(
        f"the Gram matrix is singular (smallest eigenvalue {float(eigenvalues[0]):.2g}): inputs {closest.i} and "
        f"{closest.j} point most nearly the same way (angle {closest.angle:.2g}); leave one of them out"
    )
