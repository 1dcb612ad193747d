"""How the reference networks get their memory and their first values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from ...core.errors import InputError
from ...core.random import seeded
from ..ntk import NTKLinear
from .gaussian import draw_

Init = str | Callable[..., object]
"""A name of `INITS`, or a function that is called as `init(network, generator=generator)` and changes it in place."""


@runtime_checkable
class OwnFirstValues(Protocol):
    """A module with parameters that only it knows how to draw."""

    def first_values_(self, generator: torch.Generator) -> None: ...


INITS = ("he", "glorot", "lecun", "torch")
_Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def initialize_(network: nn.Module, init: Init, generator: torch.Generator | int | None) -> None:
    """Give a network built on the meta device its memory, on the generator's device, and its first values.

    Building it there keeps torch's own initialization from costing time and from drawing random numbers. Weights of
    linear and convolutional layers are drawn by name: "he" N(0, 2 / fan-in) (He, Zhang, Ren and Sun, ICCV 2015),
    "glorot" uniform of variance 2 / (fan-in + fan-out) (Glorot and Bengio, AISTATS 2010), "lecun" N(0, 1 / fan-in),
    each with biases of zero; "torch" uniform in +-1 / sqrt(fan-in), weights and biases alike, which is torch's default.
    Recurrent layers are always drawn as torch does, uniform in +-1 / sqrt(units).

    Raises:
        InputError: a name that is not among these, or NTK layers with "glorot" or "torch".
    """
    if not callable(init) and init not in INITS:
        raise InputError(f"init must be one of {', '.join(INITS)} or a function, not {init!r}")
    generator = seeded(generator)
    network.to_empty(device=generator.device)
    name = init if isinstance(init, str) else "he"  # a function may leave some layers out
    for module in network.modules():
        if isinstance(module, NTKLinear):
            if name not in ("he", "lecun"):
                raise InputError(f"init={name!r} is not defined for the NTK parametrization: use 'he' or init_gaussian")
            module.sigma_w2 = 2.0 if name == "he" else 1.0
            module.reset_parameters(generator)
        elif isinstance(module, _Weighted):
            _weights_(module, name, generator)
        elif isinstance(module, nn.RNNBase):
            for parameter in module.parameters(recurse=False):
                _uniform_(parameter, module.hidden_size, generator)
        elif isinstance(module, OwnFirstValues):
            module.first_values_(generator)
        elif any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
            module.reset_parameters()  # type: ignore[operator]  # norms, and activations that have parameters
    if callable(init):
        init(network, generator=generator)


def _weights_(layer: _Weighted, name: str, generator: torch.Generator) -> None:
    weight, bias = layer.weight, layer.bias
    fan_in = weight[0].numel()
    if name == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    elif name == "glorot":
        nn.init.xavier_uniform_(weight, generator=generator)
    elif name == "lecun":
        draw_(weight, 1 / math.sqrt(fan_in), generator)
    else:
        _uniform_(weight, fan_in, generator)
    if bias is None:
        return
    if name == "torch":
        _uniform_(bias, fan_in, generator)
    else:
        nn.init.zeros_(bias)


def _uniform_(parameter: torch.Tensor, inputs: int, generator: torch.Generator) -> None:
    nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
