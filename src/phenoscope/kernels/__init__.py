"""Functions that need a Gram matrix: tangent kernels, infinitely wide networks, linearized ones."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .drift import ntk_drift
from .eigen import Eigenlearning, Eigensystem, eigenlearning, eigensystem, predict_generalization
from .empirical import empirical_nngp, empirical_ntk
from .finite_width import finite_width_gap, ntk_moments
from .limits.cntk import cntk
from .limits.deep_gram import deep_gram, last_hidden_gram
from .limits.infinite import Kernel, infinite
from .limits.mlp import mlp_kernels
from .limits.netsor import ProgramLimit, netsor
from .limits.programs import attention_program, batchnorm_program, gru_nngp, layernorm_program
from .limits.recurrent import rnn_nngp
from .limits.result import LimitKernels
from .limits.rnn_ntk import rnn_ntk
from .limits.two_layer import (
    ConvergenceCertificate,
    convergence_certificate,
    label_complexity,
    polynomial_complexity,
    two_layer_gram,
)
from .linearize import LinearizedModel, linear_prediction, linearize
from .predict import Prediction, predict
from .regression import Regression, kernel_regression, training_curve
from .tangent.store import load, save

if TYPE_CHECKING:
    from .gaussian_process import GaussianProcess, NTKRegressor
    from .sklearn_kernel import SklearnKernel

__all__ = [
    "ConvergenceCertificate",
    "Eigenlearning",
    "Eigensystem",
    "GaussianProcess",
    "Kernel",
    "LimitKernels",
    "LinearizedModel",
    "NTKRegressor",
    "Prediction",
    "ProgramLimit",
    "Regression",
    "SklearnKernel",
    "attention_program",
    "batchnorm_program",
    "cntk",
    "convergence_certificate",
    "deep_gram",
    "eigenlearning",
    "eigensystem",
    "empirical_nngp",
    "empirical_ntk",
    "finite_width_gap",
    "gru_nngp",
    "infinite",
    "kernel_regression",
    "label_complexity",
    "last_hidden_gram",
    "layernorm_program",
    "linear_prediction",
    "linearize",
    "load",
    "mlp_kernels",
    "netsor",
    "ntk_drift",
    "ntk_moments",
    "polynomial_complexity",
    "predict",
    "predict_generalization",
    "rnn_nngp",
    "rnn_ntk",
    "save",
    "training_curve",
    "two_layer_gram",
]

# scikit-learn takes long to import, and only its own interfaces need it
_LATER = {
    "GaussianProcess": "gaussian_process",
    "NTKRegressor": "gaussian_process",
    "SklearnKernel": "sklearn_kernel",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
