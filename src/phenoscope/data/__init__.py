"""Data sets, and data in the forms that every function takes."""

from .batches import batches
from .digits import digits
from .split import Split

__all__ = ["Split", "batches", "digits"]
