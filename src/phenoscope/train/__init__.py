"""Training."""

from .build import build
from .fit import Fit, fit
from .fleet import fleet
from .members import Fleet
from .outputs import accuracy, outputs
from .schedule import cosine, linear_decay, step_decay, warmup
from .states import States
from .watch import Watch

__all__ = [
    "Fit",
    "Fleet",
    "States",
    "Watch",
    "accuracy",
    "build",
    "cosine",
    "fit",
    "fleet",
    "linear_decay",
    "outputs",
    "step_decay",
    "warmup",
]
