"""Numbers about numbers: the intervals by which results are judged. NumPy and SciPy only."""

from .bootstrap import Interval, bootstrap

__all__ = ["Interval", "bootstrap"]
