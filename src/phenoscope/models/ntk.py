"""A linear layer in the NTK parametrization."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class NTKLinear(nn.Module):
    """A linear layer whose weights are of size one and whose scale stands beside them.

    y = sqrt(sigma_w2 / n) W x + sqrt(sigma_b2) b with n inputs, W and b first drawn from N(0, 1) (Jacot, Gabriel and
    Hongler, "Neural Tangent Kernel", NeurIPS 2018, section 3). At the start it is a linear layer with weights
    N(0, sigma_w2 / n) and biases N(0, sigma_b2), but a learning rate does not depend on the width, and where `sigma_b2`
    is 0 there is no bias in effect.

    Args:
        in_features, out_features: sizes of x and y.
        sigma_w2, sigma_b2: the two variances; attributes that may be changed.
    """

    def __init__(self, in_features: int, out_features: int, *, sigma_w2: float = 2.0, sigma_b2: float = 0.0) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.sigma_w2, self.sigma_b2 = sigma_w2, sigma_b2
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and biases from N(0, 1)."""
        nn.init.normal_(self.weight, generator=generator)
        nn.init.normal_(self.bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        # The input is scaled rather than the weight, which is the larger of the two.
        scaled = math.sqrt(self.sigma_w2 / self.in_features) * x
        return functional.linear(scaled, self.weight, math.sqrt(self.sigma_b2) * self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, sigma_w2={self.sigma_w2:.4g}, sigma_b2={self.sigma_b2:.4g}"
