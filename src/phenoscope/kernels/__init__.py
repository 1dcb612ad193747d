"""Functions that need a Gram matrix: tangent kernels, linearized networks."""

from .drift import ntk_drift
from .empirical import empirical_nngp, empirical_ntk
from .limits.mlp import MLPKernels, mlp_kernels
from .linearize import LinearizedModel, linear_prediction, linearize

__all__ = [
    "LinearizedModel",
    "MLPKernels",
    "empirical_nngp",
    "empirical_ntk",
    "linear_prediction",
    "linearize",
    "mlp_kernels",
    "ntk_drift",
]
