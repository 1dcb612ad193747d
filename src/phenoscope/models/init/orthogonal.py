"""Orthogonal first weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import seeded
from ..ntk import NTKLinear
from .gaussian import draw_

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def init_orthogonal(
    model: nn.Module,
    *,
    gain: float | None = None,
    sigma_w2: float | None = None,
    sigma_b2: float = 0.0,
    generator: torch.Generator | int | None = None,
) -> None:
    """Make the weights of linear and convolutional layers orthogonal, times a gain, and draw biases N(0, sigma_b2).

    Orthogonal matrices are uniformly distributed (Haar); rectangular ones have orthonormal rows or columns, whichever
    are fewer (Saxe, McClelland and Ganguli, ICLR 2014). A convolution has such a matrix, from input to output channels
    of each group, in the middle of its kernel and zeros around it: this, and not an orthogonal matrix of the whole
    kernel, keeps the size of a signal (Xiao, Bahri, Sohl-Dickstein, Schoenholz and Pennington, ICML 2018, algorithm 1).
    It has as many output channels as input channels or more, and an odd kernel. Other layers stay as they are.

    Args:
        model: a network, changed in place.
        gain: what all singular values are: 1, unless said, is layerwise dynamical isometry; sqrt(2) suits ReLU.
        sigma_w2: its square, in place of it; the variance of mean-field theory, where a layer is square.
        sigma_b2: the variance of biases.
        generator: what they are drawn from.

    Raises:
        InputError: a gain and a variance at once, one that is negative, a convolution without a middle or with fewer
            output than input channels, or a network without such a layer.

    Examples:
        >>> net = nn.Linear(300, 400)
        >>> init_orthogonal(net, gain=2.0, generator=0)
        >>> torch.allclose(net.weight.T @ net.weight, 4 * torch.eye(300), atol=1e-5)
        True
    """
    if gain is not None and sigma_w2 is not None:
        raise InputError("give gain= or sigma_w2=, its square, not both")
    for name, value in (("gain", gain), ("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2)):
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{name} is a number of at least 0, not {value}")
    scale = math.sqrt(sigma_w2) if sigma_w2 is not None else 1.0 if gain is None else gain
    named = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (NTKLinear, nn.Linear, *_CONVOLUTIONS))
    ]
    if not named:
        raise InputError(f"{type(model).__name__} has no linear or convolutional layer to draw weights for")
    for name, layer in named:  # before anything is changed
        if isinstance(layer, _CONVOLUTIONS):
            _check(name or type(layer).__name__, layer)
    generator = seeded(generator)
    for _, layer in named:
        if isinstance(layer, NTKLinear):  # it multiplies by sqrt(sigma_w2 / inputs) itself
            layer.sigma_w2, layer.sigma_b2 = scale**2, sigma_b2
            _set(layer.weight, _orthogonal(layer.weight.shape, generator) * math.sqrt(layer.weight.shape[1]))
            draw_(layer.bias, 1.0, generator)
            continue
        if isinstance(layer, nn.Linear):
            _set(layer.weight, scale * _orthogonal(layer.weight.shape, generator))
        else:
            _set(layer.weight, scale * _delta(layer, generator))
        if layer.bias is not None:
            draw_(layer.bias, math.sqrt(sigma_b2), generator)


def _check(name: str, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    if any(size % 2 == 0 for size in layer.kernel_size):
        raise InputError(f"the kernel of {name} has size {layer.kernel_size}: an orthogonal one needs a middle")
    if layer.out_channels < layer.in_channels:
        raise InputError(
            f"{name} has {layer.in_channels} input and {layer.out_channels} output channels: an orthogonal convolution "
            "needs at least as many output channels"
        )


def _delta(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, generator: torch.Generator) -> Tensor:
    weight = torch.zeros(layer.weight.shape, dtype=torch.float64, device=generator.device)
    taps = weight.flatten(2)  # the middle of an odd kernel is the middle of all its taps
    for rows in taps.chunk(layer.groups):
        rows[:, :, taps.shape[2] // 2] = _orthogonal(rows.shape[:2], generator)
    return weight


def _orthogonal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """In float64 and where the generator is, so that neither dtype nor device changes the numbers."""
    drawn = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return nn.init.orthogonal_(drawn, generator=generator)


@torch.no_grad()
def _set(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values)
