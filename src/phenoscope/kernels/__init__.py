"""Functions that need a Gram matrix: tangent kernels, infinitely wide networks, linearized ones."""

from .drift import ntk_drift
from .empirical import empirical_nngp, empirical_ntk
from .limits.mlp import mlp_kernels
from .limits.result import LimitKernels
from .linearize import LinearizedModel, linear_prediction, linearize

__all__ = [
    "LimitKernels",
    "LinearizedModel",
    "empirical_nngp",
    "empirical_ntk",
    "linear_prediction",
    "linearize",
    "mlp_kernels",
    "ntk_drift",
]
