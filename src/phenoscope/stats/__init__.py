"""Numbers about numbers: the intervals by which results are judged, ranks and slopes. NumPy, SciPy and xarray only."""

from .bootstrap import Interval, bootstrap
from .curves import TurningPoint, turning_points
from .rank import kendall, spearman
from .slopes import Slope, decay_rate, loglog_slope

__all__ = [
    "Interval",
    "Slope",
    "TurningPoint",
    "bootstrap",
    "decay_rate",
    "kendall",
    "loglog_slope",
    "spearman",
    "turning_points",
]
