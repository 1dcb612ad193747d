"""Nodes and weights of the standard normal that respect where a function bends."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def panels(
    scale: Tensor, mean: Tensor, places: Tensor, *, width: float, nodes: int, reach: float
) -> tuple[Tensor, Tensor]:
    """Nodes z and weights for a function of `mean + scale z`; all (n, 1) -> (n, nodes).

    Gauss-Legendre on panels of a width that end where the function bends, out to `reach` standard deviations.

    Args:
        scale, mean: of the function's argument.
        places: (n, p) arguments at which the function bends.
        width: of a panel.
        nodes: of a panel.
        reach: standard deviations.
    """
    uniform = torch.linspace(-reach, reach, math.ceil(2 * reach / width) + 1, dtype=scale.dtype, device=scale.device)
    bends = ((places - mean) / scale.clamp_min(1e-12)).clamp(-reach, reach)
    edges = torch.cat([uniform.expand(len(scale), -1), bends], 1).sort(1).values
    at, weight = (torch.as_tensor(part).to(edges) for part in np.polynomial.legendre.leggauss(nodes))
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, (edges[:, 1:] - edges[:, :-1]) / 2
    z = (middle[..., None] + half[..., None] * at).flatten(1)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return z, (half[..., None] * weight).flatten(1) * density
