"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import Activation, Layers, activation_of, check_dropout, check_shape, norm_of, widths_of
from .ntk import NTKLinear


def mlp(
    shape: Sequence[int],
    num_classes: int | None,
    *,
    width: Sequence[int] | int = (256, 256),
    depth: int | None = None,
    activation: Activation = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    init: Init = "he",
    parametrization: Literal["standard", "ntk"] = "standard",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """A multilayer perceptron: `flatten`, then `linear1`, `norm1`, `act1`, `dropout1`, `linear2` ... and `logits`.

    Args:
        shape: of one input.
        num_classes: number of scores; `None` ends with the last hidden layer.
        width: units of every hidden layer, or one number for each of `depth` layers (2 unless said).
        depth: number of hidden layers.
        activation: "relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu", "softplus", "identity", or a module
            class.
        norm: "batch" or "layer" normalization before every activation; the linear layer then has no bias.
        dropout: share of activations put to zero in training.
        init: "he", "glorot", "lecun", "torch", or a function called as `init(network, generator=generator)`, such as
            `partial(init_gaussian, sigma_w2=1.5, sigma_b2=0.1)`.
        parametrization: "ntk" makes every layer an `NTKLinear`.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, *shape) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range.

    Examples:
        >>> mlp((1, 8, 8), 10, width=(32,), generator=0)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    units = math.prod(check_shape(shape, num_classes))
    check_dropout(dropout)
    if parametrization not in ("standard", "ntk"):
        raise InputError(f'parametrization must be "standard" or "ntk", not {parametrization!r}')
    if parametrization == "ntk" and norm is not None:
        raise InputError("the NTK parametrization is defined without norm=")
    layers: Layers = Layers(flatten=nn.Flatten())

    def linear(inputs: int, outputs: int, bias: bool) -> nn.Module:
        return nn.Linear(inputs, outputs, bias=bias) if parametrization == "standard" else NTKLinear(inputs, outputs)

    with torch.device("meta"):
        for number, hidden in enumerate(widths_of(width, depth, 2), start=1):
            layers[f"linear{number}"] = linear(units, hidden, norm is None)
            normalization = norm_of(norm, hidden, 0)
            if normalization is not None:
                layers[f"norm{number}"] = normalization
            layers[f"act{number}"] = activation_of(activation)
            if dropout:
                layers[f"dropout{number}"] = nn.Dropout(dropout)
            units = hidden
        if num_classes is not None:
            layers["logits"] = linear(units, num_classes, True)
        network = nn.Sequential(layers)
    initialize_(network, init, generator)
    return network


def deep_linear(
    shape: Sequence[int],
    num_classes: int,
    *,
    width: Sequence[int] | int = 64,
    depth: int | None = None,
    init: Init = "lecun",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """A chain of linear maps without biases or activations: `flatten`, `linear1`, `linear2` ... and `logits`.

    Args:
        shape: of one input.
        num_classes: number of outputs.
        width: units of every layer in between, or one number for each of `depth` (2 unless said).
        depth: number of layers in between; 0 is one linear map.
        init: as in `mlp`; "lecun" keeps the size of a vector, on average.
        generator: what the weights are drawn from.

    Returns:
        A network from (N, *shape) to (N, num_classes).

    Raises:
        InputError: a knob outside its range.
    """
    units = math.prod(check_shape(shape, num_classes))
    layers: Layers = Layers(flatten=nn.Flatten())
    with torch.device("meta"):
        for number, hidden in enumerate(widths_of(width, depth, 2), start=1):
            layers[f"linear{number}"] = nn.Linear(units, hidden, bias=False)
            units = hidden
        layers["logits"] = nn.Linear(units, num_classes, bias=False)
        network = nn.Sequential(layers)
    initialize_(network, init, generator)
    return network


def end_to_end(model: nn.Module) -> Tensor:
    """The one matrix W_L ... W_2 W_1 that a chain of bias-free linear layers multiplies by.

    Returns:
        (outputs, inputs), with gradients to every factor.

    Raises:
        InputError: a network with anything else than flattening and linear layers without biases.
    """
    product: Tensor | None = None
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is None:
            product = module.weight if product is None else module.weight @ product
        elif not isinstance(module, (nn.Sequential, nn.Flatten, nn.Identity)):
            raise InputError(f"{type(module).__name__} is not part of a chain of linear layers without biases")
    if product is None:
        raise InputError("the network has no linear layer")
    return product
