"""Infinitely wide networks as scikit-learn's estimators. Importing this file imports scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ..core.errors import InputError
from .asked import KernelFunction, asked, kernel_of, tensor_of
from .solve import Factor, factor

_NUMBERS = 1 << 22  # in a block of the kernel of test with training examples
_DIAGONAL = 64  # examples whose kernel is made for its diagonal


class _Regressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Regression by a Gram matrix; how certain it is, its children say."""

    _get: str
    kernel: KernelFunction | nn.Module | None

    def _fit(self, X: Any, y: Any, ridge: float) -> None:
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, allow_nd=True)
        y = np.asarray(y, dtype=np.float64)
        kernel, x = kernel_of(self.kernel), tensor_of(X)
        found = factor(asked(kernel, x, None, self._get)[self._get], ridge=ridge)
        weights = found.solve(tensor_of(y).reshape(len(y), -1))
        self.X_train_, self.y_train_, self.jitter_ = X, y, found.jitter
        self.cholesky_, self.dual_coef_ = found.lower.numpy(), weights.reshape(y.shape).numpy()

    @property
    def _factor(self) -> Factor:
        return Factor(tensor_of(self.cholesky_), self.jitter_)

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """The mean, and how far from it: (n,) standard deviations or an (n, n) covariance, the same for every output.

        Args:
            X: (n, ...) inputs.
            return_std: whether to return the standard deviation as well, or
            return_cov: the covariance.

        Returns:
            (n,) or (n, C), as the targets were; or a pair of it and the standard deviation or covariance.

        Raises:
            InputError: both asked for.
        """
        if return_std and return_cov:
            raise InputError("give return_std or return_cov, not both")
        check_is_fitted(self)
        x = tensor_of(validate_data(self, X, dtype=np.float64, reset=False, allow_nd=True))
        kernel, train = kernel_of(self.kernel), tensor_of(self.X_train_)
        size = len(x) if return_cov else max(_DIAGONAL, _NUMBERS // len(train))
        weights = tensor_of(self.dual_coef_).reshape(len(train), -1)
        names = list(dict.fromkeys([self._get, "nngp"] if return_std or return_cov else [self._get]))
        # only networks trained by their tangent kernel need what they were at the training examples
        prior = asked(kernel, train, None, "nngp")["nngp"] if len(names) == 2 else torch.empty(0)
        means, spreads = [], []
        for part in x.split(size):
            cross = asked(kernel, part, train, *names)
            means.append(cross[self._get] @ weights)
            if return_cov:
                last = asked(kernel, part, None, "nngp")["nngp"]
                left, right = self._reduced(cross, prior)
                cov = last - left @ right.T
                cov = (cov + cov.T) / 2
                cov.diagonal().clamp_min_(0)
                spreads.append(cov)
            elif return_std:
                variance = _diagonal(kernel, part)
                left, right = self._reduced(cross, prior)
                spreads.append((variance - (left * right).sum(1)).clamp_min(0).sqrt())
        mean = torch.cat(means).reshape(len(x), *self.y_train_.shape[1:]).numpy()
        return (mean, torch.cat(spreads).numpy()) if spreads else mean

    def _reduced(self, cross: dict[str, Tensor], prior: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices (n, r) whose product is what training takes from the prior covariance."""
        raise NotImplementedError


class GaussianProcess(_Regressor):
    """Bayesian regression with an infinitely wide network: scikit-learn's interface, numpy in and out.

    The network's outputs are a Gaussian process whose covariance is the NNGP kernel K (Lee, Bahri, Novak et al., ICLR
    2018): the mean is K_xX (K + noise)^-1 y, the covariance K_xx - K_xX (K + noise)^-1 K_Xx, of the function without
    the noise. It is computed in float64 by a Cholesky factor. The prior has mean zero, so let the targets have it too.
    To classify, fit one-hot labels less their mean and take the largest output: `predict(X).argmax(1)`.

    Args:
        kernel: a callable `(x1, x2=None) -> LimitKernels`, as `infinite(network)`, or a network to take that of. `None`
            is a fully connected ReLU network of three hidden layers, weights of variance 2 / fan-in, biases of 0.1.
        noise: the variance of the targets' noise as a share of the kernel's mean diagonal; ten times as much is taken
            until the kernel's matrix can be factored. 0 interpolates.

    Attributes:
        jitter_: what was added to the diagonal.
        dual_coef_: (n, ...), (K + jitter_)^-1 y.
        cholesky_: (n, n), whose lower triangle is the factor of K + jitter_.
        X_train_, y_train_: what was fitted.

    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> gp = GaussianProcess(noise=1e-8).fit(x, np.sin(3 * x[:, 0]))
    >>> mean, std = gp.predict([[0.1], [3.0]], return_std=True)
    >>> bool(abs(mean[0] - np.sin(0.3)) < 0.01), bool(std[0] < 0.05 < std[1])
    (True, True)
    """

    _get = "nngp"

    def __init__(self, kernel: KernelFunction | nn.Module | None = None, *, noise: float = 1e-4) -> None:
        self.kernel = kernel
        self.noise = noise

    def fit(self, X: Any, y: Any) -> GaussianProcess:
        """Condition on examples.

        Args:
            X: (n, ...) inputs; two axes for the default kernel, images for a convolutional network's.
            y: (n,) or (n, C) targets.

        Raises:
            InputError: a kernel that is none or whose matrix is not positive semi-definite, or a negative noise.
        """
        self._fit(X, y, self.noise)
        return self

    def log_marginal_likelihood(self) -> float:
        """log N(y; 0, K + jitter), summed over outputs, of the examples fitted."""
        check_is_fitted(self)
        outputs = self.y_train_[0].size
        fitted = float((self.y_train_ * self.dual_coef_).sum())
        return -0.5 * (fitted + outputs * (self._factor.logdet() + len(self.y_train_) * math.log(2 * math.pi)))

    def _reduced(self, cross: dict[str, Tensor], prior: Tensor) -> tuple[Tensor, Tensor]:
        half = self._factor.half(cross["nngp"].T).T
        return half, half


class NTKRegressor(_Regressor):
    """What infinitely wide networks have learned when descent ends: scikit-learn's interface, numpy in and out.

    With the tangent kernel Theta, the NNGP kernel Q and M = Theta_xX (Theta + ridge)^-1, networks from random starts
    trained on squared error have the mean M y and the covariance Q_xx + M Q_XX M' - M Q_Xx - Q_xX M' (Jacot, Gabriel
    and Hongler, NeurIPS 2018; Lee, Xiao, Schoenholz et al., NeurIPS 2019); `predict` gives them at other times. To
    classify, fit one-hot labels less their mean and take the largest output.

    Args:
        kernel: as `GaussianProcess` takes it.
        ridge: added to the diagonal as a share of its mean; ten times as much is taken until the kernel's matrix can be
            factored. 0 interpolates.

    Attributes:
        jitter_: what was added to the diagonal.
        dual_coef_: (n, ...), (Theta + jitter_)^-1 y.
        cholesky_: (n, n), whose lower triangle is the factor of Theta + jitter_.
        X_train_, y_train_: what was fitted.
    """

    _get = "ntk"

    def __init__(self, kernel: KernelFunction | nn.Module | None = None, *, ridge: float = 1e-6) -> None:
        self.kernel = kernel
        self.ridge = ridge

    def fit(self, X: Any, y: Any) -> NTKRegressor:
        """Train to the end.

        Args:
            X: (n, ...) inputs; two axes for the default kernel, images for a convolutional network's.
            y: (n,) or (n, C) targets.

        Raises:
            InputError: a kernel that is none or whose matrix is not positive semi-definite, or a negative ridge.
        """
        self._fit(X, y, self.ridge)
        return self

    def _reduced(self, cross: dict[str, Tensor], prior: Tensor) -> tuple[Tensor, Tensor]:
        moved = self._factor.solve(cross["ntk"].T).T
        return moved, 2 * cross["nngp"] - moved @ prior


def _diagonal(kernel: KernelFunction, x: Tensor) -> Tensor:
    """(n,) variances before training."""
    parts: Iterator[Tensor] = (asked(kernel, part, None, "nngp")["nngp"].diagonal() for part in x.split(_DIAGONAL))
    return torch.cat(list(parts))
