"""The bench of random networks: lengths, correlations and gradients layer by layer, many networks, none trained."""

from __future__ import annotations

import dataclasses
import math

import torch
import xarray as xr
from torch import Tensor

from ...core.random import seeded
from ...theory import Activation


@dataclasses.dataclass(frozen=True)
class Passage:
    """What happens to pairs of inputs, and to gradients, on their way through random networks.

    Attributes:
        correlation: (nets, layers, pairs) h . h' / |h||h'| of pre-activations; layer 0 is where they start.
        difference: (nets, layers, pairs) 1 - correlation, without the cancellation.
        gradient: (nets, layers - 1) squared norm of dE/dW for the weights that lead to layers 1, 2 ...
    """

    correlation: Tensor
    difference: Tensor
    gradient: Tensor


def pass_through(
    act: Activation,
    *,
    sigma_w2: float,
    sigma_b2: float,
    q: float,
    starts: list[float],
    pairs: int,
    width: int,
    depth: int,
    nets: int,
    generator: torch.Generator | int | None,
) -> Passage:
    """Send pairs of pre-activations of mean square q, and gradients back from E = v . h of random v, through nets.

    Args:
        act: the activation.
        sigma_w2, sigma_b2: variances of weights, times fan-in, and of biases.
        q: mean square of pre-activations at the start.
        starts: correlations of pairs at the start.
        pairs: how many of each.
        width: units of every layer.
        depth: layers.
        nets: networks.
        generator: what draws all of it.
    """
    generator = seeded(generator)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device)

    wanted = torch.tensor([c for c in starts for _ in range(pairs)], device=generator.device)
    correlations: list[Tensor] = []
    differences: list[Tensor] = []
    gradients = []
    for _ in range(nets):
        u, v = orthogonal_pairs(width, len(wanted), generator) * math.sqrt(q)
        h, other = u, wanted * u + (1 - wanted**2).sqrt() * v
        layers, weights = [torch.cat([h, other], 1)], []
        for _ in range(depth):
            weights.append(draw(width, width) * math.sqrt(sigma_w2 / width))
            bias = draw(width, 1) * math.sqrt(sigma_b2)
            layers.append(weights[-1] @ act.function(layers[-1]) + bias)
        for found, measured in zip((correlations, differences), _similarity(layers, len(wanted)), strict=True):
            found.append(measured)
        gradients.append(_gradients(act, layers, weights, draw(width, 1)))
    return Passage(torch.stack(correlations), torch.stack(differences), torch.stack(gradients))


def overlapping_sequences(
    lengths: tuple[int, int], *, common: int, features: int, generator: torch.Generator | int | None
) -> tuple[Tensor, Tensor]:
    """Two sequences (length, features) of Gaussian tokens, of which some are in both, all at random places."""
    generator = seeded(generator)
    words = torch.randn(sum(lengths) - common, features, generator=generator, device=generator.device)
    parts = (words[: lengths[0]], words[lengths[0] - common :])
    first, second = (part[torch.randperm(len(part), generator=generator, device=part.device)] for part in parts)
    return first, second


def orthogonal_pairs(width: int, count: int, generator: torch.Generator) -> Tensor:
    """(2, width, count): pairs of orthogonal random vectors, each of mean square 1."""
    u, v = torch.randn(2, width, count, generator=generator, device=generator.device)
    u = u / u.square().mean(0).sqrt()
    v = v - (u * v).mean(0) * u
    return torch.stack([u, v / v.square().mean(0).sqrt()])


def _similarity(layers: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
    both = torch.stack(layers)
    a, b = (half / half.norm(dim=1, keepdim=True) for half in both.split(count, dim=2))
    difference = (a - b).square().sum(1) / 2
    return 1 - difference, difference


def _gradients(act: Activation, layers: list[Tensor], weights: list[Tensor], end: Tensor) -> Tensor:
    """|dE/dW|^2 = |dE/dh|^2 |f(h below)|^2, mean over inputs, for every layer of weights."""
    found, back = [], end.expand_as(layers[-1])
    for below, weight in zip(reversed(layers[:-1]), reversed(weights), strict=True):
        found.append((back.square().sum(0) * act.function(below).square().sum(0)).mean())
        back = act.derivative(below) * (weight.T @ back)
    return torch.stack(found[::-1])


def relative_error(kernel: xr.DataArray, limit: xr.DataArray) -> xr.DataArray:
    """|kernel - limit| / |limit| by Frobenius' norm, over the limit's dimensions."""
    squares = [(part**2).sum(limit.dims) for part in (kernel - limit, limit)]
    return (squares[0] / squares[1]) ** 0.5
