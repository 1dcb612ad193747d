"""The loss around a point: its curvature, and what it is along lines and planes between states."""

from .fisher import fim_spectrum, fim_trace
from .instability import instability
from .interpolate import Barrier, interpolate, linear_barrier
from .products import ggn_product, hvp, loss_gradient
from .sharpness import sharpness
from .spectrum import density, top_eigenvalues
from .surface import surface

__all__ = [
    "Barrier",
    "density",
    "fim_spectrum",
    "fim_trace",
    "ggn_product",
    "hvp",
    "instability",
    "interpolate",
    "linear_barrier",
    "loss_gradient",
    "sharpness",
    "surface",
    "top_eigenvalues",
]
