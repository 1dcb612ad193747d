"""Eigenvalues of the loss's curvature from products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.parameters import flatten, parameter_dict, unflatten
from ..core.random import seeded
from ..data.batches import Data
from .products import Loss, ggn_product, hvp

if TYPE_CHECKING:
    import xarray

Matrix = Literal["hessian", "ggn"]
_SMALL = 64  # parameters up to which the matrix itself is cheaper than to iterate


def top_eigenvalues(
    model: nn.Module,
    loss_fn: Loss,
    data: Data,
    k: int = 1,
    *,
    matrix: Matrix = "hessian",
    tolerance: float = 1e-4,
    generator: torch.Generator | int | None = None,
    chunk: int = 1024,
) -> Tensor:
    """The largest eigenvalues of the Hessian of the mean loss, or of its Gauss-Newton part.

    By the implicitly restarted Lanczos method of ARPACK (Lehoucq, Sorensen and Yang, 1998), which needs only products
    `hvp`; largest in value, not in magnitude. The network is used in the mode in which it is: in training mode dropout
    would give another matrix for every product.

    Args:
        model: the network; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: a pair of tensors, or a loader that can be gone through again and again.
        k: how many.
        matrix: "hessian", or "ggn", the Gauss-Newton matrix, which is the Fisher information for cross-entropy.
        tolerance: relative accuracy of the eigenvalues. Products in single precision do not carry much less than 1e-5.
        generator: what the first vector is drawn from.
        chunk: examples at a time.

    Returns:
        (k,), the largest first, on the model's device.

    Raises:
        InputError: a k that is not between 1 and the number of parameters, a curvature that is not finite, or a
            tolerance that was not reached.

    Examples:
        >>> line = nn.Linear(1, 1, bias=False)  # the loss is the mean of (w x - y)^2
        >>> data = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
        >>> top_eigenvalues(line, nn.functional.mse_loss, data).tolist()
        [10.0]
    """
    import numpy
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    apply, like = operator(model, loss_fn, data, matrix, chunk)
    n = like.numel()
    if not 1 <= k <= n:
        raise InputError(f"k must lie between 1 and the {n} parameters, not {k}")
    if n <= max(_SMALL, 2 * k + 1):
        columns = torch.stack([apply(row) for row in torch.eye(n, dtype=like.dtype, device=like.device)])
        return torch.linalg.eigvalsh((columns + columns.T).double() / 2).flip(0)[:k].to(like)
    start = torch.randn(n, generator=(draw := seeded(generator)), device=draw.device)
    first = apply(start.to(like))
    if not bool(first.any()):  # ARPACK refuses a matrix that is zero
        return like.new_zeros(k)

    def product(vector: Any) -> Any:
        return apply(torch.from_numpy(numpy.asarray(vector).reshape(-1)).to(like)).double().cpu().numpy()

    linear = LinearOperator((n, n), matvec=product, dtype=numpy.float64)
    try:
        found = eigsh(
            linear, k, which="LA", tol=tolerance, v0=start.double().cpu().numpy(), return_eigenvectors=False
        )  # fmt: skip
    except ArpackNoConvergence as error:
        raise InputError(f"{k} eigenvalues were not found to a tolerance of {tolerance}: raise tolerance=") from error
    except ArpackError as error:
        raise InputError(f"ARPACK could not find the eigenvalues: {error}") from error
    return torch.from_numpy(numpy.sort(found)[::-1].copy()).to(like)


def density(
    model: nn.Module,
    loss_fn: Loss,
    data: Data,
    *,
    matrix: Matrix = "hessian",
    steps: int = 80,
    probes: int = 5,
    points: int = 400,
    width: float | None = None,
    generator: torch.Generator | int | None = None,
    chunk: int = 1024,
) -> xarray.Dataset:
    """How the eigenvalues of the curvature are spread, by stochastic Lanczos quadrature.

    From a random vector of signs, `steps` of the Lanczos method give nodes and weights of a quadrature with
    sum_i w_i f(node_i) = v^T f(H) v / n on average over vectors the mean of f over the eigenvalues, for polynomials up
    to degree 2 steps - 1 (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 2017; Ghorbani, Krishnan and Xiao, ICML
    2019, algorithm 1). Every vector is made orthogonal to all before it, and all are kept: `steps` times the memory of
    the parameters.

    Args:
        model: the network; left as it was found, and used in the mode in which it is.
        loss_fn: from outputs and labels to their mean loss.
        data: a pair of tensors, or a loader that can be gone through again and again.
        matrix: "hessian" or "ggn".
        steps: products with the matrix for each vector; at most as many as there are parameters.
        probes: random vectors.
        points: of the smoothed density.
        width: standard deviation of the normal law that stands for each node in it; a hundredth of the range of the
            nodes if nothing is said.
        generator: what the vectors are drawn from.
        chunk: examples at a time.

    Returns:
        `node` and `weight` over `probe` and `index`, where the weights of a probe sum to 1 (what a probe did not need
        has the weight 0); `density` over `eigenvalue`, which integrates to 1.

    Raises:
        InputError: fewer than one step, probe or point, a width that is not positive, or a curvature that is not
            finite.
    """
    import numpy
    import xarray

    if min(steps, probes, points) < 1:
        raise InputError("steps, probes and points must be at least 1")
    if width is not None and width <= 0:
        raise InputError(f"width must be positive, not {width}")
    apply, like = operator(model, loss_fn, data, matrix, chunk)
    steps, draw = min(steps, like.numel()), seeded(generator)
    nodes, weights = numpy.zeros((probes, steps)), numpy.zeros((probes, steps))
    for probe in range(probes):
        signs = 2.0 * torch.randint(2, like.shape, generator=draw, device=draw.device) - 1
        diagonal, beside = _lanczos(apply, signs.to(like), steps)
        values, vectors = torch.linalg.eigh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
        nodes[probe, : len(values)], weights[probe, : len(values)] = values.numpy(), vectors[0].square().numpy()
    used = nodes[weights > 0]
    spread = width or float(numpy.ptp(used)) / 100 or max(1e-3 * float(abs(used).max()), 1e-12)
    grid = numpy.linspace(used.min() - 5 * spread, used.max() + 5 * spread, points)
    bells = numpy.exp(-((grid[:, None, None] - nodes) ** 2) / (2 * spread**2)) / (spread * (2 * numpy.pi) ** 0.5)
    return xarray.Dataset(
        {
            "node": (("probe", "index"), nodes),
            "weight": (("probe", "index"), weights),
            "density": ("eigenvalue", (bells * weights).sum(2).mean(1)),
        },
        {"eigenvalue": grid, "probe": numpy.arange(probes), "index": numpy.arange(steps)},
    )


def operator(
    model: nn.Module, loss_fn: Loss, data: Data, matrix: Matrix, chunk: int
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The product of the matrix with a vector of all trainable parameters, and those parameters as a vector."""
    if matrix not in ("hessian", "ggn"):
        raise InputError(f'matrix must be "hessian" or "ggn", not {matrix!r}')
    product = hvp if matrix == "hessian" else ggn_product
    parameters = parameter_dict(model)

    def apply(vector: Tensor) -> Tensor:
        found = flatten(product(model, loss_fn, data, unflatten(vector, parameters), chunk=chunk))
        if not bool(found.isfinite().all()):
            raise InputError("the curvature of the loss is not finite at these weights")
        return found

    return apply, flatten(parameters)


def _lanczos(apply: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Diagonal and off-diagonal of the tridiagonal matrix, in double precision; shorter where the space is used up."""
    basis = start.new_empty(steps, len(start))
    basis[0] = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(steps):
        new = apply(basis[step])
        size = float(new.norm())
        diagonal.append(float(new @ basis[step]))
        known = basis[: step + 1]
        for _ in range(2):  # twice is enough (Parlett, 1980)
            new = new - known.T @ (known @ new)
        left = float(new.norm())
        if step == steps - 1 or left <= 10 * torch.finfo(new.dtype).eps * max(size, max(map(abs, diagonal))):
            break
        beside.append(left)
        basis[step + 1] = new / left
    return torch.tensor(diagonal, dtype=torch.float64), torch.tensor(beside, dtype=torch.float64)
