"""Numbers about a network, or about networks trained side by side."""

from .lazy.report import lazy_report
from .sensitivity.jacobian import jacobian, jacobian_norm, jacobian_singular_values
from .signals.trainable import crossing_depth, hidden_activation, trainable_depth
from .sweeps.double_descent import double_descent, effective_model_complexity

__all__ = [
    "crossing_depth",
    "double_descent",
    "effective_model_complexity",
    "hidden_activation",
    "jacobian",
    "jacobian_norm",
    "jacobian_singular_values",
    "lazy_report",
    "trainable_depth",
]
