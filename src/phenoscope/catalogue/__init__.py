"""The catalogue: papers on deep-learning phenomena, each with the claims that were registered before any experiment."""

from .entry import SECTIONS, Claim, Entry, entries, entry
from .states import State, is_ready, last_result, module_of, states, tally

__all__ = [
    "SECTIONS",
    "Claim",
    "Entry",
    "State",
    "entries",
    "entry",
    "is_ready",
    "last_result",
    "module_of",
    "states",
    "tally",
]
