"""Record how the filters of a network evolve while it trains, and read what was recorded."""

from .ablate import ablate
from .evolution import Evolution, evolution
from .checkpoints import evolve
from .recorder import Recorder
from .run import Run, open_run

__all__ = ["Evolution", "Recorder", "Run", "evolution", "open_run"]
