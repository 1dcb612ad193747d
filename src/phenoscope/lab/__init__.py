"""The laboratory: studies, their claims, the verdicts on them, and what runs them. It knows nothing of networks."""

from ..catalogue import State, is_ready, last_result, states, tally
from .claim import Expectation
from .judge import Judgement, judge, not_applicable
from .map import CellError, Lab
from .result import JudgedClaim, Result
from .run import run
from .seeds import seed_for
from .study import Study, study

__all__ = [
    "CellError",
    "Expectation",
    "JudgedClaim",
    "Judgement",
    "Lab",
    "Result",
    "State",
    "Study",
    "is_ready",
    "judge",
    "last_result",
    "not_applicable",
    "run",
    "seed_for",
    "states",
    "study",
    "tally",
]
