"""Derivatives example by example: `torch.func` in chunks, so that memory stays bounded."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

from .errors import InputError
from .guard import unchanged
from .parameters import call, parameter_dict

_BYTES = 256 * 2**20  # of derivatives held at once


def per_example_gradients(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    data: tuple[Tensor, Tensor],
    *,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """The gradient of every example's own loss with respect to every trainable parameter.

    Args:
        model: from a batch to outputs; used in the mode in which it is.
        loss_fn: from outputs and labels to a mean loss; it is called on batches of one.
        data: `(x, y)`.
        chunk: examples at a time.

    Returns:
        Parameter name -> (N, *shape of the parameter).

    Raises:
        InputError: batch normalization in training mode, where no example has a loss of its own.
    """
    x, y = data
    per_example_only(model)
    parameters = parameter_dict(model)

    def loss(values: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        return loss_fn(call(model, values, one_x[None]), one_y[None])

    size = chunk or examples_at_once(parameters, 1)
    each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    with unchanged(model):
        parts = [each(parameters, a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
    return {name: torch.cat([part[name] for part in parts]).detach() for name in parameters}


def per_example_jacobians(
    model: nn.Module, x: Tensor, of: Callable[[Tensor], Tensor] | None = None, *, chunk: int | None = None
) -> dict[str, Tensor]:
    """The derivative of every output of every example with respect to every trainable parameter.

    Args:
        model: from a batch to outputs (N, C).
        x: a batch.
        of: what to differentiate, from outputs (1, C) to (K,); all outputs if `None`.
        chunk: examples that `vmap` takes at a time.

    Returns:
        Parameter name -> (N, K, *shape of the parameter).

    Raises:
        InputError: batch normalization in training mode.
    """
    per_example_only(model)
    parameters = parameter_dict(model)

    def outputs(values: dict[str, Tensor], one: Tensor) -> Tensor:
        result = call(model, values, one[None])
        return result.reshape(-1) if of is None else of(result)

    with unchanged(model):
        found = vmap(jacrev(outputs), in_dims=(None, 0), randomness="different", chunk_size=chunk)(parameters, x)
    return {name: value.detach() for name, value in found.items()}


def input_gradient(model: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of every example's score with respect to its input.

    Args:
        model: from a batch to outputs; in the mode in which it is.
        x: a batch.
        score: from outputs to one number an example, (N,).

    Returns:
        A tensor of the shape of `x`.
    """
    with unchanged(model), torch.enable_grad():
        inputs = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(score(model(inputs)).sum(), inputs)
    return found


def jvp(function: Callable[[Any], Tensor], at: Any, direction: Any, *, order: int = 1) -> tuple[Tensor, ...]:
    """The derivatives of `t -> function(at + t direction)` at t = 0, by forward mode.

    Args:
        function: from a tensor, or a dictionary of tensors, to a tensor.
        at: where.
        direction: as `at`.
        order: 1 or 2.

    Returns:
        The value, the first and, with `order=2`, the second derivative.

    Examples:
        >>> [float(part) for part in jvp(lambda x: x**3, torch.tensor(2.0), torch.tensor(1.0), order=2)]
        [8.0, 12.0, 12.0]
    """
    if order not in (1, 2):
        raise InputError(f"order must be 1 or 2, not {order!r}")
    _load_forward_mode()

    def along(what: Callable[[Any], Any], point: Any) -> Any:
        return torch.func.jvp(what, (point,), (direction,))

    if order == 1:
        return along(function, at)
    (value, slope), (_, second) = along(lambda point: along(function, point), at)
    return value, slope, second


@functools.cache
def _load_forward_mode() -> None:
    """torch compiles some rules of forward mode on first use, and warns of the way in which it does so itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with torch.autograd.forward_ad.dual_level():
            torch.autograd.forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def per_example_only(model: nn.Module) -> None:
    """Refuse a network in which examples of a batch act on one another.

    Raises:
        InputError: batch normalization in training mode.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"{name or 'the model'} normalizes over the batch, so that no example has derivatives of its own: "
                "call model.eval() first"
            )


def examples_at_once(parameters: dict[str, Tensor], outputs: int) -> int:
    """For how many examples derivatives of so many outputs fit into a few hundred megabytes."""
    each = outputs * sum(value.numel() * value.element_size() for value in parameters.values())
    return max(1, _BYTES // each)
