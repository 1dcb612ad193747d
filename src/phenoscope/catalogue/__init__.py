"""The catalogue: papers on deep-learning phenomena, each with the claims that were registered before any experiment."""

from .entry import SECTIONS, Claim, Entry, entries, entry

__all__ = ["SECTIONS", "Claim", "Entry", "entries", "entry"]
