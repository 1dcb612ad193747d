"""Curvature of the loss times a vector, without ever forming the matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.guard import unchanged
from ..core.parameters import call, parameter_dict
from ..data.batches import Data, batches

Vector = Mapping[str, Tensor]
Loss = Callable[[Any, Any], Tensor]


def hvp(model: nn.Module, loss_fn: Loss, data: Data, vector: Vector, *, chunk: int = 1024) -> dict[str, Tensor]:
    """The Hessian of the mean loss times a vector (Pearlmutter, Neural Computation 1994).

    H v = d/de grad L(w + e v) at e = 0, of L(w) = mean over all examples of the loss, by a backward pass through the
    backward pass. The network is used in the mode in which it is.

    Args:
        model: the network; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: a pair of tensors or a loader.
        vector: parameter name -> a tensor of its shape; the derivatives are with respect to these parameters only.
        chunk: examples at a time.

    Returns:
        Parameter name -> a tensor of its shape, for the names of `vector`.

    Raises:
        InputError: a vector of other names or shapes than the network's trainable parameters, or data without examples.
    """

    def product(at: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
            loss = loss_fn(call(model, leaves, x), y)
            slope = _gradient(loss, leaves, create_graph=True)
            along = sum((g * vector[n]).sum() for n, g in zip(leaves, slope, strict=True) if g is not None)
            if not isinstance(along, Tensor) or along.grad_fn is None:  # a loss linear in the parameters
                return tuple(None for _ in leaves)  # type: ignore[misc]
            return _gradient(along, leaves)

    return _over_data(model, data, vector, product, chunk)


def ggn_product(model: nn.Module, loss_fn: Loss, data: Data, vector: Vector, *, chunk: int = 1024) -> dict[str, Tensor]:
    """The generalized Gauss-Newton matrix of the mean loss times a vector (Schraudolph, Neural Computation 2002).

    G v = mean over examples of J^T H_out J v, J the derivative of an example's outputs with respect to the parameters
    and H_out the Hessian of its loss with respect to them. For cross-entropy it is the Fisher information.

    Args, returns and errors as those of `hvp`.
    """

    def product(at: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
            outputs = call(model, leaves, x)
            # J v by two reverse passes, which every operation of torch supports
            dummy = torch.zeros_like(outputs, requires_grad=True)
            back = _gradient(outputs, leaves, dummy, create_graph=True)
            along = sum((g * vector[n]).sum() for n, g in zip(leaves, back, strict=True) if g is not None)
            if not isinstance(along, Tensor) or along.grad_fn is None:
                return tuple(None for _ in leaves)  # type: ignore[misc]
            (pushed,) = torch.autograd.grad(along, dummy, retain_graph=True)
            free = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss_fn(free, y), free, create_graph=True)
            (curved,) = torch.autograd.grad(slope, free, pushed, allow_unused=True) if slope.requires_grad else (None,)
            if curved is None:
                return tuple(None for _ in leaves)  # type: ignore[misc]
            return _gradient(outputs, leaves, curved)

    return _over_data(model, data, vector, product, chunk)


def loss_gradient(
    model: nn.Module, loss_fn: Loss, data: Data, *, names: Mapping[str, Any] | None = None, chunk: int = 1024
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all examples, for all trainable parameters or for those of the names given.

    Args and errors as those of `hvp`.
    """

    def slope(at: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
            return _gradient(loss_fn(call(model, leaves, x), y), leaves)

    parameters = parameter_dict(model)
    if names is not None and (unknown := set(names) - set(parameters)):
        raise InputError(f"the model has no trainable parameter {min(unknown)!r}")
    wanted = {name: value for name, value in parameters.items() if names is None or name in names}
    return _over_data(model, data, wanted, slope, chunk)


def _gradient(
    of: Tensor, leaves: dict[str, Tensor], weights: Tensor | None = None, *, create_graph: bool = False
) -> tuple[Any, ...]:
    keep = create_graph or None
    inputs = list(leaves.values())
    return torch.autograd.grad(of, inputs, weights, create_graph=create_graph, retain_graph=keep, allow_unused=True)


def _over_data(
    model: nn.Module, data: Data, vector: Vector, of: Callable[[dict[str, Tensor], Tensor, Tensor], Any], chunk: int
) -> dict[str, Tensor]:
    """The mean over examples of what `of(parameters, x, y)` gives for batches, by parameter name."""
    parameters = parameter_dict(model)
    for name, part in vector.items():
        if name not in parameters:
            raise InputError(f"the model has no trainable parameter {name!r}")
        if part.shape != parameters[name].shape:
            raise InputError(f"{name!r} has shape {tuple(parameters[name].shape)}, the vector {tuple(part.shape)}")
    at = {name: parameters[name] for name in vector}
    total = {name: torch.zeros_like(value) for name, value in at.items()}
    place, count = next(iter(parameters.values())), 0
    with unchanged(model):
        for x, y in batches(data, chunk):
            x = x.to(place.device, place.dtype if x.is_floating_point() else x.dtype)
            for name, part in zip(at, of(at, x, y.to(place.device)), strict=True):
                if part is not None:
                    total[name] += len(x) * part.detach()
            count += len(x)
    if count == 0:
        raise InputError("the loader gave no batches")
    return {name: value / count for name, value in total.items()}
