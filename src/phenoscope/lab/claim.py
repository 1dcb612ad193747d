"""What a claim expects: a range, written `> a`, `>= a`, `< a`, `<= a` or `in [a, b]`."""

from __future__ import annotations

import dataclasses
import math
import re

from ..core.errors import InputError

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_ONE_SIDED = re.compile(rf"\s*(>=|<=|>|<)\s*{_NUMBER}\s*")
_INTERVAL = re.compile(rf"\s*in\s*\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]\s*")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """The values from `low` to `high`; `strict` leaves out the one bound that is given."""

    low: float
    high: float
    strict: bool = False

    @classmethod
    def parse(cls, text: str) -> Expectation:
        """Read an expectation.

        Raises:
            InputError: the text is not of the grammar, or its interval is empty.
        """
        if match := _ONE_SIDED.fullmatch(text):
            sign, bound = match[1], float(match[2])
            strict = len(sign) == 1
            return cls(bound, math.inf, strict) if sign[0] == ">" else cls(-math.inf, bound, strict)
        if match := _INTERVAL.fullmatch(text):
            low, high = float(match[1]), float(match[2])
            if low <= high:
                return cls(low, high)
        raise InputError(f"{text!r} is no expectation: write > a, >= a, < a, <= a or in [a, b]")

    def holds(self, low: float, high: float) -> bool:
        """Whether all values from `low` to `high` are as expected."""
        return self._above(low) and self._below(high)

    def fails(self, low: float, high: float) -> bool:
        """Whether no value from `low` to `high` is as expected."""
        return not self._above(high) or not self._below(low)

    def _above(self, value: float) -> bool:
        return value > self.low if self.strict and math.isfinite(self.low) else value >= self.low

    def _below(self, value: float) -> bool:
        return value < self.high if self.strict and math.isfinite(self.high) else value <= self.high
