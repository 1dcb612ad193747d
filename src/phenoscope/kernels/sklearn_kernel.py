"""A limit's kernel among scikit-learn's. Importing this file imports scikit-learn."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.gaussian_process.kernels import Kernel
from torch import nn

from .asked import KernelFunction, asked, kernel_of, tensor_of


class SklearnKernel(Kernel):
    """An infinitely wide network's kernel for `GaussianProcessRegressor`, `SVC` and sums with scikit-learn's kernels.

    It has no hyperparameters that scikit-learn would search.

    Args:
        kernel: as `GaussianProcess` takes it.
        get: which of its two kernels.

    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> gp = GaussianProcessRegressor(SklearnKernel(), alpha=0.01).fit([[0.0], [1.0]], [0.0, 1.0])
    >>> bool(0.9 < gp.predict([[1.0]])[0] < 1)
    True
    """

    def __init__(self, kernel: KernelFunction | nn.Module | None = None, get: Literal["nngp", "ntk"] = "nngp") -> None:
        self.kernel = kernel
        self.get = get

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """(n_X, n_Y) matrix, and with `eval_gradient` its gradient by no hyperparameters, (n_X, n_Y, 0)."""
        x1 = tensor_of(np.asarray(X, np.float64))
        x2 = None if Y is None else tensor_of(np.asarray(Y, np.float64))
        found = asked(kernel_of(self.kernel), x1, x2, self.get)[self.get].numpy()
        return (found, np.empty((*found.shape, 0))) if eval_gradient else found

    def diag(self, X: Any) -> np.ndarray:
        """The diagonal of the matrix of `X` with itself."""
        parts = tensor_of(np.asarray(X, np.float64)).split(64)
        kernel = kernel_of(self.kernel)
        return np.concatenate([asked(kernel, part, None, self.get)[self.get].diagonal().numpy() for part in parts])

    def is_stationary(self) -> bool:
        """It depends on more than differences."""
        return False
