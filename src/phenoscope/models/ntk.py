"""Linear and convolutional layers in the NTK parametrization."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError


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


class NTKConv2d(nn.Module):
    """A convolution of stride 1 that keeps the maps' size, with weights of size one and their scale beside them.

    y = sqrt(sigma_w2 / (C q^2)) W * x + sqrt(sigma_b2) b with C input channels and a filter of side q, W and b first
    drawn from N(0, 1) (Arora, Du, Hu et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019,
    section 4).

    Args:
        in_channels, out_channels: of x and y.
        kernel_size: q, odd.
        sigma_w2, sigma_b2: the two variances; attributes that may be changed.
        padding_mode: "zeros" or "circular".
    """

    stride, dilation, groups = (1, 1), (1, 1), 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        sigma_w2: float = 2.0,
        sigma_b2: float = 0.0,
        padding_mode: Literal["zeros", "circular"] = "zeros",
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0 or padding_mode not in ("zeros", "circular"):
            raise InputError(
                f'kernel_size is odd and padding_mode "zeros" or "circular", not {kernel_size} and {padding_mode!r}'
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.padding = (kernel_size,) * 2, (kernel_size // 2,) * 2
        self.sigma_w2, self.sigma_b2, self.padding_mode = sigma_w2, sigma_b2, padding_mode
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and biases from N(0, 1)."""
        nn.init.normal_(self.weight, generator=generator)
        nn.init.normal_(self.bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        scaled = math.sqrt(self.sigma_w2 / (self.in_channels * math.prod(self.kernel_size))) * x
        mode = "constant" if self.padding_mode == "zeros" else "circular"
        padded = functional.pad(scaled, self.padding * 2, mode=mode)
        return functional.conv2d(padded, self.weight, math.sqrt(self.sigma_b2) * self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size[0]}, "
            f"sigma_w2={self.sigma_w2:.4g}, sigma_b2={self.sigma_b2:.4g}, padding_mode={self.padding_mode}"
        )
