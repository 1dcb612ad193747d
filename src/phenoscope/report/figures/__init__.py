"""Figures of studies: functions of a result that return what a page shows."""

from .forest import forest_row, forest_strip

__all__ = ["forest_row", "forest_strip"]
