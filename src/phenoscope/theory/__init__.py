"""Closed forms and deterministic recursions; no network."""

from .asymptotics.sample_wise import linearity_ratio, random_features_curve, random_features_spectrum
from .dynamics.single_example import single_example_solution
from .finite_width.ntk import ntk_fluctuation
from .gaussian.activations import Activation, activation
from .gaussian.moments import gaussian_moments
from .margin.interpolator import Interpolator, exact_interpolator
from .propagation.backprop import backprop_moment
from .propagation.mlp import CriticalInit, MeanField, critical_gain, critical_init, critical_line, mean_field

__all__ = [
    "Activation",
    "CriticalInit",
    "Interpolator",
    "MeanField",
    "activation",
    "backprop_moment",
    "critical_gain",
    "critical_init",
    "critical_line",
    "exact_interpolator",
    "gaussian_moments",
    "linearity_ratio",
    "mean_field",
    "ntk_fluctuation",
    "random_features_curve",
    "random_features_spectrum",
    "single_example_solution",
]
