"""One linear layer trained to reproduce a single example."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import InputError


def single_example_solution(start: Tensor, x: Tensor) -> Tensor:
    """Where gradient descent takes f(z) = W z that learns f(x) = x: W = W_0 (I - P) + P, P = x x^T / |x|^2.

    All updates are of rank one, along x. So the layer copies along x and in every other direction keeps the random map
    that it began with: for entries of W_0 of variance v, the expected squared error at z, summed over d outputs, is
    (1 + d v) |z - P z|^2. From Zhang, Bengio, Hardt, Mozer and Singer, "Identity Crisis: Memorization and
    Generalization under Extreme Overparameterization" (ICLR 2020, section 3).

    Args:
        start: (d, d), W_0.
        x: (d,) or of any shape of d numbers, not all zero.

    Returns:
        (d, d), in the dtype of `start`; the limit of gradient flow, and of descent on half the squared error at any
        rate below 2 / |x|^2.

    Raises:
        InputError: sizes that do not match, or an x of zeros or of numbers that are not finite.

    Examples:
        >>> single_example_solution(torch.tensor([[5.0, 2.0], [7.0, 3.0]]), torch.tensor([1.0, 0.0]))
        tensor([[1., 2.],
                [0., 3.]])
    """
    d = x.numel()
    if start.shape != (d, d):
        raise InputError(f"an example of {d} numbers needs a matrix of shape ({d}, {d}), not {tuple(start.shape)}")
    flat = x.detach().reshape(-1).to(start.device, torch.float64)
    length = flat.square().sum()
    if not (torch.isfinite(length) and length > 0):
        raise InputError("the example must be finite and not zero: nothing is learned from zero")
    matrix = start.detach().double()
    return (matrix + torch.outer(flat - matrix @ flat, flat / length)).to(start.dtype)
