"""The Fisher information of a network's weights: its trace and its eigenvalues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.gradients import examples_at_once, per_example_gradients, per_example_jacobians, per_example_only
from ..core.guard import unchanged
from ..core.parameters import parameter_dict
from ..core.random import seeded
from ..data.batches import batches
from ..kernels import empirical_ntk
from ..train.outputs import placed

if TYPE_CHECKING:
    import xarray

Kind = Literal["softmax", "regression"]
Inputs = Tensor | tuple[Tensor, Tensor] | Iterable[Any]


@overload
def fim_trace(
    model: nn.Module, data: Inputs, *, kind: Kind = ..., per_layer: Literal[False] = ..., draws: int = ...,
    generator: torch.Generator | int | None = ..., chunk: int | None = ...,
) -> Tensor: ...  # fmt: skip
@overload
def fim_trace(
    model: nn.Module, data: Inputs, *, kind: Kind = ..., per_layer: Literal[True], draws: int = ...,
    generator: torch.Generator | int | None = ..., chunk: int | None = ...,
) -> xarray.DataArray: ...  # fmt: skip
def fim_trace(
    model: nn.Module,
    data: Inputs,
    *,
    kind: Kind = "softmax",
    per_layer: bool = False,
    draws: int = 1,
    generator: torch.Generator | int | None = None,
    chunk: int | None = None,
) -> Tensor | xarray.DataArray:
    """The trace of the Fisher information: how strongly what the network says depends on its weights.

    tr F = E_x E_{y ~ p(y|x)} |grad log p(y|x)|^2, with labels drawn from the network itself, not those of the data,
    which would give the empirical Fisher (Amari, Neural Computation 1998; Achille, Rovere and Soatto, ICLR 2019,
    section 3). The gradients are those of single examples.

    Args:
        model: from a batch to outputs (N, C); left as it was found; in evaluation mode if it has batch normalization.
        data: inputs (N, ...), a pair of tensors or a loader of pairs, whose labels do not matter.
        kind: "softmax" for scores of classes; "regression" for means of normal laws of variance 1.
        per_layer: whether to give the part of every layer that has parameters.
        draws: labels drawn for each input.
        generator: what draws them.
        chunk: examples at a time.

    Returns:
        One number as a tensor; with `per_layer` an array over `layer`, which sums to it.

    Raises:
        InputError: other outputs than (N, C), batch normalization in training mode, or no draws.
    """
    import numpy
    import xarray

    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}")
    per_example_only(model)
    parameters, draw = parameter_dict(model), seeded(generator)
    size = chunk or min(1024, examples_at_once(parameters, 1))
    total = {name: torch.zeros((), dtype=torch.float64) for name in parameters}
    count = 0
    for x in _inputs(model, data, size):
        for _ in range(draws):
            slopes = _drawn_slopes(_outputs(model, x), kind, draw)
            found = per_example_gradients(model, _weighted_sum, (x, slopes), chunk=size)
            for name, value in found.items():
                total[name] += value.double().square().sum().cpu()
        count += len(x)
    if not per_layer:
        return torch.stack(list(total.values())).sum().to(next(iter(parameters.values()))) / (count * draws)
    layers: dict[str, float] = {}
    for name, value in total.items():
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, 0.0) + float(value) / (count * draws)
    return xarray.DataArray(numpy.array(list(layers.values())), {"layer": list(layers)}, "layer")


def fim_spectrum(model: nn.Module, data: Inputs, *, kind: Kind = "softmax", chunk: int | None = None) -> Tensor:
    """The eigenvalues of the Fisher information, exactly.

    F = (1/N) sum_n J_n^T H_n J_n over inputs, J_n the derivative of the C outputs by the P parameters, H_n = diag(p) -
    p p^T for "softmax" and the identity for "regression" (Karakida, Akaho and Amari, AISTATS 2019). With H_n = S_n
    S_n^T the matrix of the N C columns J_n^T S_n / sqrt(N) has a Gram matrix of the same non-zero eigenvalues; the
    smaller of the two is formed. For larger problems `top_eigenvalues(matrix="ggn")` gives the largest ones.

    Args:
        model: from a batch to outputs (N, C); left as it was found; in evaluation mode if it has batch normalization.
        data: inputs (N, ...), a pair of tensors or a loader of pairs, whose labels do not matter.
        kind: "softmax" or "regression".
        chunk: examples at a time.

    Returns:
        (min(P, N C),) eigenvalues, the largest first; those not among them are zero.

    Raises:
        InputError: other outputs than (N, C), or batch normalization in training mode.
    """
    per_example_only(model)
    parameters = parameter_dict(model)
    size = sum(value.numel() for value in parameters.values())
    x = torch.cat(list(_inputs(model, data, 1024)))
    outputs = _outputs(model, x)
    n, classes = outputs.shape
    roots = _roots(outputs, kind)
    if n * classes <= size:
        kernel = empirical_ntk(model, x, chunk=chunk).double()
        gram = torch.einsum("iak,ijab,jbl->ikjl", roots, kernel, roots).reshape(n * classes, n * classes)
    else:
        gram = torch.zeros(size, size, dtype=torch.float64, device=x.device)
        step = chunk or examples_at_once(parameters, classes)
        for some, root in zip(x.split(step), roots.split(step), strict=True):
            jacobian = torch.cat([part.flatten(2) for part in per_example_jacobians(model, some).values()], 2)
            rows = torch.einsum("iak,iap->ikp", root, jacobian.double()).flatten(0, 1)
            gram += rows.T @ rows
    return torch.linalg.eigvalsh(gram / n).flip(0).clamp(min=0).to(outputs)


def _inputs(model: nn.Module, data: Inputs, size: int) -> Iterator[Tensor]:
    pairs = (data, data.new_zeros(data.shape[:1])) if isinstance(data, Tensor) else data
    empty = True
    for x, y in batches(pairs, size):
        empty = False
        for part in x.split(size):
            yield placed(part, y, model)[0]
    if empty:
        raise InputError("the loader gave no batches")


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with unchanged(model), torch.no_grad():
        outputs = model(x)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(x):
        raise InputError("the model must give one row of outputs (N, C) for each example")
    return outputs


def _drawn_slopes(outputs: Tensor, kind: Kind, draw: torch.Generator) -> Tensor:
    """The derivative of log p(y | x) by the outputs, for labels y drawn from p."""
    if kind == "regression":
        return torch.randn(outputs.shape, generator=draw, device=draw.device, dtype=outputs.dtype).to(outputs)
    if kind != "softmax":
        raise InputError(f'kind must be "softmax" or "regression", not {kind!r}')
    probabilities = outputs.softmax(1)
    labels = torch.multinomial(probabilities.to(draw.device), 1, generator=draw).to(outputs.device)
    return torch.zeros_like(outputs).scatter_(1, labels, 1.0) - probabilities


def _roots(outputs: Tensor, kind: Kind) -> Tensor:
    """S (N, C, C) in double precision with H = S S^T: column c is sqrt(p_c) (e_c - p)."""
    identity = torch.eye(outputs.shape[1], dtype=torch.float64, device=outputs.device)
    if kind == "regression":
        return identity.expand(len(outputs), -1, -1)
    if kind != "softmax":
        raise InputError(f'kind must be "softmax" or "regression", not {kind!r}')
    probabilities = outputs.double().softmax(1)
    return (identity - probabilities[:, :, None]) * probabilities.sqrt()[:, None, :]


def _weighted_sum(outputs: Tensor, weights: Tensor) -> Tensor:
    return (outputs * weights).sum()
