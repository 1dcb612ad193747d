"""Record how the filters of a network evolve while it trains, and find those that never learned."""

from .ablate import ablate
from .checkpoints import evolve
from .differences import differences
from .evolution import Evolution, evolution
from .recorder import Recorder
from .redundant import Filters, least_evolved, redundant
from .run import Run, open_run
from .settling import freezing, settling

__all__ = [
    "Evolution",
    "Filters",
    "Recorder",
    "Run",
    "ablate",
    "differences",
    "evolution",
    "evolve",
    "freezing",
    "least_evolved",
    "open_run",
    "redundant",
    "settling",
]
