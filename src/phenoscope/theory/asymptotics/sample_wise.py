"""Regression on random features by number of samples: where the error peaks, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ..gaussian.activations import Activation, Function, activation
from ..gaussian.moments import gaussian_moments

if TYPE_CHECKING:
    import xarray

Act = str | Function | nn.Module | type[nn.Module] | Activation


def linearity_ratio(act: Act) -> float:
    """How much of an activation is linear under Gaussian inputs: r = (E z f(z))^2 / E f(z)^2, from 0 to 1.

    The r = zeta / eta of d'Ascoli, Sagun and Biroli, "Triple descent and the two kinds of overfitting" (NeurIPS 2020,
    section 2): 1 for linear functions, 0 for even ones. A constant part counts as nonlinear.

    Args:
        act: an activation (`theory.activation`).

    Raises:
        InputError: an unknown activation, or one that is zero.

    Examples:
        >>> [round(linearity_ratio(name), 4) for name in ("identity", "tanh", "erf", "relu", "abs")]
        [1.0, 0.9305, 0.9136, 0.5, 0.0]
    """
    act = activation(act)
    square, along = _moments(act)
    if square == 0:
        raise InputError(f"activation {act.name} is zero, which is neither linear nor nonlinear")
    return along**2 / square


def random_features_curve(
    act: Act,
    *,
    d: int,
    p: int,
    ns: Sequence[int],
    snr: float,
    ridge: float | Sequence[float],
    ensembles: int = 1,
    draws: int = 1,
    test: int = 1000,
    generator: torch.Generator | int | None = None,
    device: torch.device | str = "cpu",
) -> xarray.Dataset:
    """The test error of ridge regression on random features by number of samples, simulated.

    The model of d'Ascoli, Sagun and Biroli (NeurIPS 2020, section 2): inputs x ~ N(0, I_d), labels <beta, x> / sqrt(d)
    + N(0, 1 / snr) with |beta|^2 = d, features f(Theta x / sqrt(d)) / sqrt(p) with frozen Theta ~ N(0, 1), (p, d), and
    coefficients (Z^T Z + ridge I)^-1 Z^T y. With noise and little ridge the error can peak at n = d, where the linear
    part of f fits noise, and at n = p, where the error depends on Theta. Linear algebra in float64.

    Args:
        act: f (`theory.activation`).
        d: input dimensions.
        p: features.
        ns: numbers of samples; those of a draw are the first of the same samples.
        snr: variance of the labels' signal over that of their noise; `math.inf` is no noise.
        ridge: one or several, positive.
        ensembles: how many networks (draws of Theta) are fitted to the same samples and averaged, at most.
        draws: repetitions, each with beta, samples and Theta of its own.
        test: fresh inputs to test on, against what beta says without noise.
        generator: what everything is drawn from. The draws do not depend on `act`, `snr` and `ridge`, and those of the
            first networks not on `ensembles`, so that curves can be compared pair by pair.
        device: where to compute.

    Returns:
        `error`, the mean squared error, over `ridge`, `ensemble` (the mean of the first 1, 2 ... networks), `n` and
        `draw`. Take the median over draws: at a peak the mean is carried by few.

    Raises:
        InputError: a number out of range.

    Examples:
        >>> curve = random_features_curve(
        ...     "identity", d=10, p=40, ns=(5, 10, 100), snr=1.0, ridge=1e-6, draws=20, generator=0
        ... ).error.median("draw").squeeze()
        >>> bool(curve.sel(n=10) > 2 * curve.sel(n=5)) and bool(curve.sel(n=10) > 5 * curve.sel(n=100))
        True
    """
    import xarray

    act, grid = activation(act), tuple(int(n) for n in ns)
    ridges = tuple(ridge) if isinstance(ridge, Sequence) else (ridge,)
    if min(d, p, ensembles, draws, test, *grid, 1) < 1 or not grid:
        raise InputError(f"d, p, ensembles, draws, test and every n must be at least 1; got d={d}, p={p}, ns={grid}")
    if not snr > 0 or not ridges or min(ridges) <= 0:
        raise InputError(f"snr and ridge must be positive, not {snr} and {ridge}")
    found = torch.empty(len(ridges), ensembles, len(grid), draws, dtype=torch.float64)
    for draw, seed in enumerate(child_seeds(generator, draws)):
        rng = seeded(seed)
        x, y, x_test, truth = _sample(d, max(grid), snr, test, rng, device)
        total = torch.zeros(len(ridges), len(grid), test, dtype=torch.float64, device=device)
        for member in range(ensembles):
            theta = torch.randn(p, d, dtype=torch.float64, generator=rng).to(device)
            z, z_test = (features(act.function, theta, inputs) for inputs in (x, x_test))
            for place, n in enumerate(grid):
                total[:, place] += ridge_predictions(z[:n], y[:n], z_test, ridges)
            found[:, member, :, draw] = (total / (member + 1) - truth).square().mean(-1).cpu()
    coordinates = {"ridge": list(ridges), "ensemble": range(1, ensembles + 1), "n": list(grid), "draw": range(draws)}
    return xarray.Dataset({"error": (tuple(coordinates), found.numpy())}, coordinates)


def random_features_spectrum(
    act: Act, *, d: int, p: int, n: int, generator: torch.Generator | int | None = None
) -> tuple[Tensor, Tensor]:
    """The nonzero eigenvalues of Z Z^T, and those of its linear part, of one draw of random features.

    With f(z) = sqrt(zeta) z + rest, the features are a linear part, of rank min(n, d, p), and a rest that is nearly
    independent of it and acts on the linear modes like a ridge of eta - zeta (d'Ascoli, Sagun and Biroli, NeurIPS 2020,
    section 3). The smallest eigenvalue of the linear part goes to zero at n = d, that of the whole at n = p; a peak is
    high where nothing lifts the small eigenvalues, hence low at n = d for an activation that is far from linear.

    Args:
        act: f (`theory.activation`).
        d: input dimensions.
        p: features.
        n: samples.
        generator: what samples and features are drawn from.

    Returns:
        Eigenvalues of Z Z^T, (min(n, p),), and those of its linear part, (min(n, d, p),), both ascending, float64.

    Raises:
        InputError: a number under 1.
    """
    act = activation(act)
    if min(d, p, n) < 1:
        raise InputError(f"d, p and n must be at least 1, not {d}, {p} and {n}")
    rng = seeded(generator)
    x = torch.randn(n, d, dtype=torch.float64, generator=rng)
    theta = torch.randn(p, d, dtype=torch.float64, generator=rng)
    _, along = _moments(act)
    whole = torch.linalg.svdvals(features(act.function, theta, x)).square().flip(0)
    # singular values of X Theta^T are those of R_x R_theta^T of the two QR factors, which are small
    small = torch.linalg.qr(x, mode="r").R @ torch.linalg.qr(theta, mode="r").R.T
    linear = along * torch.linalg.svdvals(small) / math.sqrt(d * p)
    return whole, linear[: min(n, d, p)].square().flip(0)


def features(function: Callable[[Tensor], Tensor], theta: Tensor, x: Tensor) -> Tensor:
    """f(Theta x / sqrt(d)) / sqrt(p), (n, p)."""
    p, d = theta.shape
    return function(x @ theta.T / math.sqrt(d)) / math.sqrt(p)


def ridge_predictions(z: Tensor, y: Tensor, z_test: Tensor, ridges: Sequence[float]) -> Tensor:
    """What ridge regression of y (n,) on z (n, p) says of z_test (t, p): (ridges, t). Solved in the smaller space."""
    n, p = z.shape
    gram = z @ z.T if n < p else z.T @ z
    identity = torch.eye(len(gram), dtype=z.dtype, device=z.device)
    right = (y if n < p else z.T @ y)[:, None]
    solved = torch.cat([torch.cholesky_solve(right, torch.linalg.cholesky(gram + r * identity)) for r in ridges], 1)
    return (z_test @ (z.T @ solved if n < p else solved)).T


def _sample(
    d: int, n: int, snr: float, test: int, rng: torch.Generator, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, noisy labels, test inputs, and their labels without noise."""
    beta = torch.randn(d, dtype=torch.float64, generator=rng)
    beta = beta / beta.norm()  # beta / sqrt(d) of the paper
    x_test, x = (torch.randn(size, d, dtype=torch.float64, generator=rng) for size in (test, n))
    noise = torch.randn(n, dtype=torch.float64, generator=rng)
    parts = (x, x @ beta + noise / math.sqrt(snr), x_test, x_test @ beta)
    x, y, x_test, truth = (part.to(device) for part in parts)
    return x, y, x_test, truth


def _moments(act: Activation) -> tuple[float, float]:
    """E f^2 and E z f(z), z standard normal; the latter from the square of the sum, which needs no derivative."""
    square = float(gaussian_moments(act, 1.0, power=2))
    summed = dataclasses.replace(act, function=lambda z: z + act.function(z), slopes=None, is_erf=False)
    return square, (float(gaussian_moments(summed, 1.0, power=2)) - 1 - square) / 2
