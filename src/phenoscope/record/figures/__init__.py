"""Figures of recorded runs: functions of a run that return a plotly figure, for notebooks and for the report's pages.

Names of layers and runs are escaped: plotly reads a part of HTML in its labels. What a figure would like changed where
there is little width stands in its `layout.meta` (see `stack`), and does nothing in a notebook.
"""

from .ablation import ablation
from .differences import differences
from .feature_maps import feature_maps
from .heatmap import heatmap
from .measures import measures
from .settling import settling
from .sorted_distance import sorted_distance
from .strips import strips

__all__ = ["ablation", "differences", "feature_maps", "heatmap", "measures", "settling", "sorted_distance", "strips"]
