"""Gaussian first weights of given variances."""

from __future__ import annotations

import math

import torch
from torch import nn

from ...core.errors import InputError
from ...core.random import seeded
from ..ntk import NTKLinear

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def init_gaussian(
    model: nn.Module,
    *,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    generator: torch.Generator | int | None = None,
) -> None:
    """Draw weights from N(0, sigma_w2 / fan-in) and biases from N(0, sigma_b2), in linear and convolutional layers.

    The convention of mean-field theory (Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, NeurIPS 2016, section 2),
    where a preactivation has variance sigma_w2 E[x^2] + sigma_b2 whatever the width. The fan-in is the number of inputs
    that one output sees. A layer in the NTK parametrization gets the two variances as its scales, and weights and
    biases from N(0, 1). Other layers stay as they are.

    Args:
        model: a network, changed in place.
        sigma_w2, sigma_b2: the variances, not negative.
        generator: what the weights are drawn from.

    Raises:
        InputError: a negative variance, or a network without such a layer.

    Examples:
        >>> net = nn.Linear(400, 300)
        >>> init_gaussian(net, sigma_w2=4.0, generator=0)
        >>> round(net.weight.std().item(), 2), net.bias.count_nonzero().item()
        (0.1, 0)
    """
    if not (0 <= sigma_w2 < math.inf and 0 <= sigma_b2 < math.inf):
        raise InputError(f"sigma_w2 and sigma_b2 are variances, at least 0, not {sigma_w2} and {sigma_b2}")
    layers = [module for module in model.modules() if isinstance(module, (NTKLinear, *_LAYERS))]
    if not layers:
        raise InputError(f"{type(model).__name__} has no linear or convolutional layer to draw weights for")
    generator = seeded(generator)
    for layer in layers:
        if isinstance(layer, NTKLinear):
            layer.sigma_w2, layer.sigma_b2 = sigma_w2, sigma_b2
            draw_(layer.weight, 1.0, generator)
            draw_(layer.bias, 1.0, generator)
        else:
            draw_(layer.weight, math.sqrt(sigma_w2 / layer.weight[0].numel()), generator)
            if layer.bias is not None:
                draw_(layer.bias, math.sqrt(sigma_b2), generator)


@torch.no_grad()
def draw_(parameter: torch.Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with N(0, std^2), drawn where the generator is, so that the device does not change the numbers."""
    drawn = torch.empty(parameter.shape, dtype=parameter.dtype, device=generator.device)
    parameter.copy_(drawn.normal_(generator=generator).mul_(std))
