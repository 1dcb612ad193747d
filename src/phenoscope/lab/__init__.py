"""The laboratory: claims, and the verdicts on them. It knows nothing of neural networks."""

from .claim import Expectation
from .judge import Judgement, judge, not_applicable

__all__ = ["Expectation", "Judgement", "judge", "not_applicable"]
