"""What a kernel's eigenvalues say of the error that regression with it will make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.random import child_seeds, seeded
from .empirical import empirical_ntk
from .limits.result import LimitKernels

if TYPE_CHECKING:
    import xarray


@dataclasses.dataclass(frozen=True, eq=False)
class Eigensystem:
    """A kernel's eigenfunctions on a pool of M points, each point of weight 1 / M.

    Attributes:
        values: (M,) eigenvalues, the largest first; those that rounding cannot tell from zero are zero.
        functions: (M, M), a column an eigenfunction on the pool, of mean square 1.
        coefficients: (M,) or (M, C), the target's on the eigenfunctions.
    """

    values: Tensor
    functions: Tensor
    coefficients: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Eigenlearning:
    """What is predicted of regression on n samples.

    Attributes:
        kappa: the eigenvalue of which half is learned.
        learnabilities: the share of each mode that is learned, from 0 to 1.
        e0: by how much more the error is than what is not learned: overfitting.
        test_mse: mean squared error on noisy samples, summed over outputs.
        train_mse: that on the samples of training.
    """

    kappa: float
    learnabilities: Tensor
    e0: float
    test_mse: float
    train_mse: float


def eigensystem(kernel: Tensor, targets: Tensor) -> Eigensystem:
    """The eigenvalues and eigenfunctions of a kernel under the law of a finite pool, and a target's coefficients.

    With M points the operator of the kernel is K / M; its eigenfunctions are sqrt(M) times unit vectors, a target f has
    coefficients phi' f / M. Computed in float64.

    Args:
        kernel: (M, M), symmetric.
        targets: (M,) or (M, C) values on the pool.

    Raises:
        InputError: a matrix that is not square, symmetric and finite, or targets of another length.
    """
    size = len(kernel)
    if kernel.ndim != 2 or kernel.shape != (size, size) or not size:
        raise InputError(f"a kernel on a pool is a square matrix, not of shape {tuple(kernel.shape)}")
    if targets.ndim not in (1, 2) or len(targets) != size or not targets.is_floating_point():
        raise InputError(f"targets must be real, ({size},) or ({size}, C), not {targets.dtype} {tuple(targets.shape)}")
    k = kernel.detach().double()
    if not torch.isfinite(k).all():
        raise InputError("the kernel has entries that are not finite")
    if (k - k.T).abs().max() > 1e-4 * k.abs().max():
        raise InputError("the kernel is not symmetric")
    values, vectors = torch.linalg.eigh((k + k.T) / (2 * size))
    values, vectors = values.flip(0), vectors.flip(1)
    floor = size * torch.finfo(torch.float64).eps * float(values[0].clamp_min(0))
    values = torch.where(values > floor, values, torch.zeros_like(values))
    functions = vectors * math.sqrt(size)
    return Eigensystem(values, functions, functions.T @ targets.to(functions) / size)


def eigenlearning(
    values: Tensor,
    coefficients: Tensor,
    n: int,
    *,
    ridge: float = 0.0,
    noise_var: float = 0.0,
    multiplicities: Tensor | None = None,
) -> Eigenlearning:
    """What kernel ridge regression on n samples learns of each mode, and its error: nothing is fitted.

    With eigenvalues v_i under the law of the data and kappa such that sum_i v_i / (v_i + kappa) + ridge / kappa = n,
    mode i is learned to the share L_i = v_i / (v_i + kappa). With e0 = n / (n - sum_i L_i^2) the mean squared error is
    e0 (sum_i (1 - L_i)^2 c_i^2 + noise), that on the training samples (ridge / (n kappa))^2 times as much. Without
    ridge, the shares add up to n (Simon, Dickens, Karkada and DeWeese, "The Eigenlearning Framework", TMLR 2023,
    section 4). The predictor is K(x, X) (K(X, X) + ridge)^-1 y; samples are independent draws.

    Args:
        values: (modes,) eigenvalues, as `eigensystem` gives them; negative ones count as zero.
        coefficients: (modes,) or (modes, C) of the target.
        n: samples.
        ridge: added to the diagonal of the samples' kernel matrix.
        noise_var: variance of the noise on each output, in training and in the error; take it off `test_mse` for the
            error on the clean target.
        multiplicities: how many modes have each eigenvalue, and each of these coefficients; 1 if `None`.

    Returns:
        The prediction. Without ridge and with at least as many samples as modes of eigenvalue above zero, kappa is 0.

    Raises:
        InputError: a negative ridge or noise, no samples, no eigenvalue above zero, or lengths that differ.

    Examples:
        >>> found = eigenlearning(torch.ones(8), torch.ones(8), 2)
        >>> found.learnabilities[0].item(), round(found.test_mse, 9)
        (0.25, 6.0)
    """
    v = values.detach().double().cpu().clamp_min(0)
    c = coefficients.detach().double().cpu().reshape(len(coefficients), -1)
    times = torch.ones_like(v) if multiplicities is None else multiplicities.detach().double().cpu()
    if v.ndim != 1 or len(c) != len(v) or times.shape != v.shape:
        shapes = tuple(tuple(each.shape) for each in (values, coefficients, times))
        raise InputError(f"eigenvalues, coefficients and multiplicities differ in length: {shapes}")
    if n < 1 or not ridge >= 0 or not noise_var >= 0:
        raise InputError(f"n must be at least 1, ridge and noise_var at least 0, not {n}, {ridge} and {noise_var}")
    if not (v > 0).any() or not torch.isfinite(v).all():
        raise InputError("there must be an eigenvalue above zero, and none may be infinite")
    kappa = _kappa(v.numpy(), times.numpy(), n, ridge)
    learned = torch.where(v > 0, v / (v + kappa), v)
    squares = float((times * learned**2).sum())
    e0 = n / (n - squares) if n - squares > 1e-12 * n else math.inf
    missed = float((times[:, None] * (1 - learned[:, None]) ** 2 * c**2).sum()) + noise_var * c.shape[1]
    test = e0 * missed if missed else 0.0
    return Eigenlearning(kappa, learned, e0, test, (ridge / (n * kappa)) ** 2 * test if ridge else 0.0)


def predict_generalization(
    kernel: nn.Module | Callable[..., LimitKernels] | Tensor,
    x: Tensor | None,
    targets: Tensor,
    ns: Sequence[int],
    *,
    ridges: Sequence[float] = (0.0,),
    noise_var: float = 0.0,
    repeats: int = 0,
    get: Literal["ntk", "nngp"] = "ntk",
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Learning curves of kernel regression from the kernel's eigenvalues alone, and measured ones beside them.

    A pool of M examples stands for the law of the data: `eigensystem` of its kernel matrix, `eigenlearning` at every n.
    The error is that on the whole pool, so that the prediction is for n well below M: beyond M / 5 samples it is
    noticeably too high, because a sample without replacement knows more than independent draws. Wide networks trained
    on squared error follow the curves of their tangent kernel.

    Args:
        kernel: a network, for its own tangent kernel as it stands (mean over outputs); kernels of a limit, such as
            `kernels.infinite(network)`; or the matrix (M, M).
        x: (M, ...) the pool; `None` where the matrix is given.
        targets: (M,) or (M, C) real values; classes (M,) become one-hot vectors minus the share of each class.
        ns: numbers of samples.
        ridges: added to the diagonal of the samples' kernel matrix.
        noise_var: of noise on targets, where errors are predicted and measured.
        repeats: how many samples of each size to draw and regress on, for comparison.
        get: which kernel of a limit.
        generator: what draws samples and noise.

    Returns:
        Over `ridge` and `n`: `test_mse`, `train_mse` (summed over outputs; `noise_var` counts in the first), `kappa`,
        `e0` and `target_learnability`, the share of the whole target that is learned, <f, f_hat> / <f, f>; over these
        and `mode`, the largest eigenvalue first, `learnability`. Over `mode` `eigenvalue` and `energy`, the target's
        squared coefficient. With repetitions `measured_mse` and `measured_learnability`, over `repeat`, too.

    Raises:
        InputError: what `eigensystem` and `eigenlearning` refuse, or a number of samples beyond the pool.
    """
    import xarray

    matrix = _matrix(kernel, x, get)
    f = _targets(targets, len(matrix)).to(matrix.device)
    system = eigensystem(matrix, f)
    grid = [int(n) for n in ns]
    if not grid or min(grid) < 1 or max(grid) > len(matrix) or not len(ridges):
        raise InputError(f"ns must lie between 1 and the pool's {len(matrix)}, and ridges not be empty; got ns={grid}")
    energy = system.coefficients.reshape(len(matrix), -1).square().sum(1).cpu()
    found = [
        [eigenlearning(system.values, system.coefficients, n, ridge=ridge, noise_var=noise_var) for n in grid]
        for ridge in ridges
    ]
    shares = torch.stack([torch.stack([each.learnabilities for each in row]) for row in found])

    def over(name: str) -> Any:
        return (("ridge", "n"), [[getattr(each, name) for each in row] for row in found])

    variables: dict[str, Any] = {name: over(name) for name in ("test_mse", "train_mse", "kappa", "e0")}
    variables["learnability"] = (("ridge", "n", "mode"), shares.numpy())
    variables["target_learnability"] = (("ridge", "n"), ((shares * energy).sum(-1) / energy.sum()).numpy())
    variables["eigenvalue"] = ("mode", system.values.cpu().numpy())
    variables["energy"] = ("mode", energy.numpy())
    coordinates = {"ridge": list(ridges), "n": grid, "mode": range(len(matrix))}
    if repeats:
        measured = _measured(matrix.double(), f.reshape(len(f), -1), grid, ridges, noise_var, repeats, generator)
        for name, values in zip(("measured_mse", "measured_learnability"), measured, strict=True):
            variables[name] = (("ridge", "n", "repeat"), values)
        coordinates["repeat"] = range(repeats)
    return xarray.Dataset(variables, coordinates)


def _kappa(values: np.ndarray, times: np.ndarray, n: int, ridge: float) -> float:
    """The root of sum v / (v + kappa) + ridge / kappa = n, which falls with kappa, between bounds that enclose it."""
    from scipy.optimize import brentq

    values, times = values[values > 0], times[values > 0]
    modes = times.sum()
    if not ridge and n >= modes:
        return 0.0

    def excess(log: float) -> float:
        kappa = math.exp(log)
        return float((times * values / (values + kappa)).sum() + ridge / kappa - n)

    high = ((times * values).sum() + ridge) / n  # every term is below v / kappa
    low = max(ridge / n, values.min() * (modes - n) / n)  # every term is at least that of the smallest
    low, high = math.log(low) - 1e-6, math.log(high) + 1e-6
    return math.exp(float(brentq(excess, low, high, xtol=1e-14, rtol=8.9e-16)))


def _matrix(kernel: Any, x: Tensor | None, get: str) -> Tensor:
    if isinstance(kernel, Tensor):
        return kernel
    if x is None:
        raise InputError("a pool x is needed, unless its kernel matrix is given")
    if get not in ("ntk", "nngp"):
        raise InputError(f'get must be "ntk" or "nngp", not {get!r}')
    if isinstance(kernel, nn.Module):
        return empirical_ntk(kernel, x, outputs="trace")
    if not callable(kernel):
        raise InputError(f"a kernel is a network, a limit's kernels or a matrix, not a {type(kernel).__name__}")
    found = kernel(x)
    return found.ntk if get == "ntk" else found.nngp


def _targets(targets: Tensor, size: int) -> Tensor:
    if targets.is_floating_point():
        return targets.detach().double()
    if targets.shape != (size,):
        raise InputError(f"classes must be ({size},), not {tuple(targets.shape)}")
    hot = functional.one_hot(targets.long()).double()
    return hot - hot.mean(0)


def _solved(gram: Tensor, y: Tensor, ridge: float) -> Tensor:
    """(K + ridge)^-1 y; without a ridge the smallest solution, also where samples outnumber the modes."""
    if not ridge:
        return torch.linalg.pinv(gram, hermitian=True) @ y
    return torch.cholesky_solve(y, torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)).to(gram)))


def _measured(
    kernel: Tensor, f: Tensor, ns: list[int], ridges: Any, noise_var: float, repeats: int, generator: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The error on the pool, and the share of the target that is learned, sample by sample: (ridges, ns, repeats)."""
    error = np.empty((len(ridges), len(ns), repeats))
    learned = np.empty_like(error)
    for repeat, seed in enumerate(child_seeds(generator, repeats)):
        draw = seeded(seed)
        order = torch.randperm(len(f), generator=draw).to(f.device)
        noise = math.sqrt(noise_var) * torch.randn(f.shape, generator=draw, dtype=f.dtype).to(f.device)
        for place, n in enumerate(ns):
            rows = order[:n]
            gram, cross, y = kernel[rows][:, rows], kernel[:, rows], (f + noise)[rows]
            for which, ridge in enumerate(ridges):
                guess = cross @ _solved(gram, y, ridge)
                error[which, place, repeat] = float((guess - f).square().sum(1).mean()) + noise_var * f.shape[1]
                learned[which, place, repeat] = float((guess * f).sum() / f.square().sum())
    return error, learned
