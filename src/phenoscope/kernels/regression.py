"""Regression by a Gram matrix: the fit, and the residual of descent step by step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..core.errors import InputError
from .solve import check_gram, factor

_CHUNK = 1 << 22  # numbers at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
    """What kernel regression found.

    Attributes:
        prediction: (n_test, ...) of the targets' shape, float64.
        jitter: what was added to the diagonal in the end.
        weights: (n_train, ...), (K + jitter I)^-1 y: `k @ weights` predicts elsewhere.
    """

    prediction: Tensor
    jitter: float
    weights: Tensor


def kernel_regression(k_train: Tensor, y: Tensor, k_test: Tensor, *, ridge: float = 1e-6) -> Regression:
    """K_test (K_train + jitter I)^-1 y, by a Cholesky factor in float64.

    The jitter is `ridge` times the mean of the diagonal and grows tenfold until the factor exists; the result says
    what it was. Beside the given matrices one copy of `k_train` is held. To classify, take one-hot labels less their
    mean, as Arora, Du, Hu et al. (NeurIPS 2019) and Lee et al. (ICLR 2018) do, and the largest prediction.

    Args:
        k_train: (n, n) kernel among the training examples.
        y: (n, ...) targets.
        k_test: (n_test, n) kernel of test with training examples.
        ridge: the least jitter, as a share of the mean diagonal; 0 interpolates.

    Returns:
        Predictions, jitter and dual weights.

    Raises:
        InputError: shapes that do not match, targets that are not finite, or a matrix that is not symmetric, finite
            and, up to a jitter, positive definite.

    >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    >>> k = lambda a, b: torch.exp(-(a - b.T) ** 2)
    >>> kernel_regression(k(x, x), x[:, 0] ** 2, k(x[:2], x), ridge=0).prediction
    tensor([1.0000, 0.2500], dtype=torch.float64)
    """
    targets = checked_targets(k_train, y)
    if k_test.ndim != 2 or k_test.shape[1] != len(k_train):
        raise InputError(f"k_test must be (n_test, {len(k_train)}), not of shape {tuple(k_test.shape)}")
    found = factor(k_train, ridge=ridge)
    weights = found.solve(targets)
    prediction = k_test.detach().to(weights) @ weights
    return Regression(prediction.reshape(-1, *y.shape[1:]), found.jitter, weights.reshape(y.shape))


def training_curve(k: Tensor, y: Tensor, *, lr: float, steps: int) -> Tensor:
    """The norm of the residual after every step of full-batch descent on sum (f - y)^2 / 2, with the kernel constant.

    sqrt(sum_i (1 - lr lambda_i)^(2 step) (v_i . y)^2) with the eigenpairs of the kernel (Arora, Du, Hu, Li and Wang,
    ICML 2019, theorem 4.1). Exact for a linearized network and its tangent kernel.

    Args:
        k: (n, n) Gram matrix: a limit's, or a network's own.
        y: the residual at the start, targets less outputs: (n,), or (n, C) for C outputs that share the kernel, or
            (m, C) with m C = n where the kernel is that of all outputs, an example's side by side.
        lr: the learning rate.
        steps: how many steps.

    Returns:
        (steps + 1,), float64, the first before any step.

    Raises:
        InputError: shapes that do not match, values that are not finite, or a negative number of steps.

    >>> training_curve(torch.eye(2), torch.tensor([3.0, 4.0]), lr=0.5, steps=2)
    tensor([5.0000, 2.5000, 1.2500], dtype=torch.float64)
    """
    if int(steps) != steps or steps < 0:
        raise InputError(f"steps must be a whole number from 0, not {steps!r}")
    residual = checked_targets(k, y.reshape(-1) if y.ndim and len(y) != len(k) == y.numel() else y)
    gram = k.detach().double()
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    power = (vectors.T @ residual).square().sum(1)
    left = (1 - lr * values.clamp_min(0)).square()
    numbers = torch.arange(int(steps) + 1, dtype=torch.float64, device=k.device)
    squares = [left ** part[:, None] @ power for part in numbers.split(max(1, _CHUNK // len(k)))]
    return torch.cat(squares).sqrt()


def checked_targets(k: Tensor, y: Tensor, *, keep: bool = False) -> Tensor:
    """Targets of a Gram matrix's examples, both checked: (n, C) in float64 where the kernel is, or kept as they are.

    Raises:
        InputError: shapes that do not match, or values that are not finite.
    """
    check_gram(k)
    if not y.ndim or len(y) != len(k):
        raise InputError(f"a kernel matrix of {len(k)} examples needs as many targets, not shape {tuple(y.shape)}")
    if not torch.isfinite(y).all():
        raise InputError("the targets have entries that are not finite")
    y = y.detach().to(k.device)
    return y if keep else y.double().reshape(len(y), -1)
