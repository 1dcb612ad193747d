"""Closed forms and deterministic recursions; no network."""

from .gaussian.activations import Activation, activation
from .gaussian.moments import gaussian_moments
from .propagation.mlp import CriticalInit, MeanField, critical_gain, critical_init, critical_line, mean_field

__all__ = [
    "Activation",
    "CriticalInit",
    "MeanField",
    "activation",
    "critical_gain",
    "critical_init",
    "critical_line",
    "gaussian_moments",
    "mean_field",
]
