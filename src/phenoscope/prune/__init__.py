"""Make networks smaller: filters that training left behind, removed for good."""

from .removable import Removable, removable
from .slim import slim, slim_report

__all__ = ["Removable", "removable", "slim", "slim_report"]
