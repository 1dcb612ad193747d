"""A kernel and its matrices, where a kernel is any callable that gives `LimitKernels`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .limits.mlp import mlp_kernels
from .limits.result import LimitKernels

KernelFunction = Callable[..., LimitKernels]


def asked(kernel: KernelFunction, x1: Tensor, x2: Tensor | None, *names: str) -> dict[str, Tensor]:
    """The matrices of these names among "nngp" and "ntk", in float64; no other is computed if the kernel can choose.

    Raises:
        InputError: something that is not a kernel.
    """
    if not callable(kernel) or isinstance(kernel, nn.Module):
        raise InputError(f"kernel must be callable, as kernels.infinite(network) is, not {type(kernel).__name__}")
    try:
        chooses = "get" in inspect.signature(kernel).parameters
    except (TypeError, ValueError):  # what has no signature cannot be asked
        chooses = False
    with torch.no_grad():
        found = kernel(x1, x2, get=names) if chooses else kernel(x1, x2)
    shape = (len(x1), len(x1 if x2 is None else x2))
    matrices = {}
    for name in names:
        matrix = getattr(found, name, None)
        if not isinstance(matrix, Tensor) or tuple(matrix.shape) != shape:
            raise InputError(f"the kernel gave no {name} of shape {shape} but {type(found).__name__}")
        matrices[name] = matrix.double()
    return matrices


def kernel_of(kernel: KernelFunction | nn.Module | None) -> KernelFunction:
    """A kernel, that of a network's limit, or by default that of a ReLU network of depth 3 as in Lee et al. (2018)."""
    if kernel is None:
        return functools.partial(mlp_kernels, depth=3, act="relu", sigma_w2=2.0, sigma_b2=0.1)
    if isinstance(kernel, nn.Module):
        from .limits.infinite import infinite

        return infinite(kernel)
    return kernel


def tensor_of(array: np.ndarray) -> Tensor:
    """The same numbers without a copy, unless they may not be written to, of which torch warns."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
