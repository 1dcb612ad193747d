"""Training."""

from .fit import Fit, accuracy, fit

__all__ = ["Fit", "accuracy", "fit"]
