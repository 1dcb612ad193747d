"""Training."""

from .build import build
from .ensembles.ensemble import Ensemble
from .ensembles.swag import Swag, multiswag, swag
from .fit import Fit, fit
from .fleet import fleet
from .members import Fleet
from .outputs import accuracy, outputs
from .schedule import cosine, linear_decay, step_decay, warmup
from .states import States
from .watch import Watch

__all__ = [
    "Ensemble",
    "Fit",
    "Fleet",
    "States",
    "Swag",
    "Watch",
    "accuracy",
    "build",
    "cosine",
    "fit",
    "fleet",
    "linear_decay",
    "multiswag",
    "outputs",
    "step_decay",
    "swag",
    "warmup",
]
