"""A network's parameters as a dictionary or as one vector, and the network called with other ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .errors import InputError


def parameter_dict(model: nn.Module, *, trainable: bool = True) -> dict[str, Tensor]:
    """Parameter name -> its values, apart from any graph but sharing memory with the network.

    Args:
        model: a network.
        trainable: only parameters with `requires_grad`.

    Raises:
        InputError: a network without such parameters, or with some that lazy modules have yet to make.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(f"parameter {name!r} has no shape yet: call the model once on a batch first")
    chosen = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad or not trainable}
    if not chosen:
        raise InputError("the model has no trainable parameters" if trainable else "the model has no parameters")
    return chosen


def weight_names(model: nn.Module) -> list[str]:
    """Names of the parameters with two or more dimensions: weights, not biases or norms' scales."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


def flatten(parameters: Mapping[str, Tensor]) -> Tensor:
    """All values as one vector, in the mapping's order.

    Examples:
        >>> flatten({"a": torch.ones(2, 1), "b": torch.zeros(1)}).tolist()
        [1.0, 1.0, 0.0]
    """
    if not parameters:
        raise InputError("there are no parameters to flatten")
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`: views of the vector in the shapes and the order of `like`.

    Raises:
        InputError: a vector of another length.
    """
    sizes = [value.numel() for value in like.values()]
    if vector.ndim != 1 or len(vector) != sum(sizes):
        raise InputError(f"a vector of {sum(sizes)} values is needed, not one of shape {tuple(vector.shape)}")
    parts = vector.split(sizes)
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def call(model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The network's outputs with these parameters in place of its own; what is not named stays as it is.

    The network is not changed, and gradients flow to `parameters`. Where parameters or whole modules are shared, the
    first name that `named_parameters` gives them stands for all uses.
    """
    first: dict[int, str] = {}
    values = {}
    # torch's own tying of shared weights leaves a module that is registered twice with the values of the call
    for prefix, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{prefix}.{key}" if prefix else key
                source = first.setdefault(id(parameter), name)
                if source in parameters:
                    values[name] = parameters[source]
    if unknown := parameters.keys() - set(first.values()):
        raise InputError(f"the model has no parameter {min(unknown)!r}")
    return functional_call(model, values, (x,), tie_weights=False)
