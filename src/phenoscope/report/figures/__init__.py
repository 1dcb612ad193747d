"""Figures of studies: functions of a result that return what a page shows."""

from .density import accuracy_by_density
from .forest import forest_row, forest_strip
from .generalization import generalization_curve
from .surface import loss_surface

__all__ = ["accuracy_by_density", "forest_row", "forest_strip", "generalization_curve", "loss_surface"]
