"""Forest plots of claims, a row with an axis of its own each: drawn as SVG, so that a page needs no script for them.

The expectation is shaded, the estimate a mark on the line of its interval, other root seeds short strokes. Places are
percentages of the width, so that a row fits a phone while its text keeps its size. Colors are those of `study.css`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ...core.errors import InputError
from ...lab import Expectation
from ..numbers import number, numbers
from ..outcomes import ClaimOutcome
from ..theme import text

_MARKS = {
    "holds": "<circle class='mark' r='{r}'/>",
    "refuted": "<path class='mark' d='M0-{d}L{d} 0 0 {d}-{d} 0Z'/>",
}
_OTHER = "<circle class='mark hollow' r='{r}'/>"
_MARGIN = 0.08  # of the width at either end
_FAR = 6  # zero is farther from the values than so many times their span: it would press them together


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values that a row spans."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """Of all finite ones, with a margin, and of zero where it is not far from them.

        Values beyond what differences of floats can tell stand at the ends.
        """
        finite = [min(max(value, -1e300), 1e300) for value in values if math.isfinite(value)]
        finite = [value if abs(value) > 1e-290 else 0.0 for value in finite]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if high - low > max(abs(low), abs(high)) / _FAR:
            low, high = min(low, 0.0), max(high, 0.0)
        room = (high - low) * _MARGIN / (1 - 2 * _MARGIN) or abs(high) / 2 or 1.0
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        """In percent of the width; what lies beyond an end stands at it."""
        return round(min(max(100 * (value - self.low) / (self.high - self.low), 0.0), 100.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Two to five round values and how they are written, all with the same decimals."""
        span = (self.high - self.low) * (1 - 2 * _MARGIN)
        step = 10 ** math.floor(math.log10(span / 2))
        step *= next((factor for factor in (5, 2) if span / (factor * step) >= 2), 1)
        first = math.ceil(self.low / step)
        places = [step * i for i in range(first, min(math.floor(self.high / step), first + 9) + 1)]
        decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
        if decimals > 4 or max(map(abs, places), default=0) >= 1e5:
            return [(value, number(value)) for value in places]
        return [(value, f"{value:.{decimals}f}".replace("-", "−")) for value in places]


def forest_row(claim: ClaimOutcome) -> str:
    """One claim with its axis, for a study's page; nothing where there is nothing to draw."""
    expected = expectation(claim.expects)
    if expected is None and math.isnan(claim.estimate):
        return ""
    axis = _axis(claim, expected)
    labels = "".join(_tick(axis.place(value), label) for value, label in _apart(axis))
    return (
        f"<svg class='forest {slug(claim.verdict)}' height='58' role='img' aria-label='{text(spoken(claim))}'>"
        f"{_drawn(claim, expected, axis, top=4, height=32, size=5.5)}"
        f"<line class='axis' x1='0' x2='100%' y1='36' y2='36'/>{labels}</svg>\n"
    )


def forest_strip(claims: Sequence[ClaimOutcome]) -> str:
    """All claims of a result in rows without numbers, for a card."""
    rows = []
    for i, claim in enumerate(claims):
        expected = expectation(claim.expects)
        drawn = _drawn(claim, expected, _axis(claim, expected), top=11 * i + 1, height=9, size=3.2)
        rows.append(f"<g class='{slug(claim.verdict)}'>{drawn}</g>")
    return f"<svg class='forest strip' height='{11 * len(rows)}' aria-hidden='true'>{''.join(rows)}</svg>\n"


def spoken(claim: ClaimOutcome) -> str:
    """A row in words."""
    said = "no estimate" if math.isnan(claim.estimate) else f"estimate {measured(claim)}"
    return f"{said}; expected {claim.expects}; {claim.verdict}"


def measured(claim: ClaimOutcome) -> str:
    """Estimate and interval, with as many digits as tell them from the bounds of the expectation."""
    expected = expectation(claim.expects)
    bounds = [expected.low, expected.high] if expected else []
    estimate, low, high = numbers([claim.estimate, claim.low, claim.high], apart_from=bounds)
    if claim.unit in ("", "none") or math.isnan(claim.low) or math.isnan(claim.high):
        return estimate
    return f"{estimate}, 95 % interval {low} to {high}"


def expectation(expects: str) -> Expectation | None:
    """What a claim expects, if that can be read."""
    try:
        return Expectation.parse(expects)
    except InputError:
        return None


def slug(verdict: str) -> str:
    """A verdict as the name of a class."""
    return "".join(c if c.isalpha() else "-" for c in verdict).strip("-")


def _axis(claim: ClaimOutcome, expected: Expectation | None) -> Axis:
    bounds = [expected.low, expected.high] if expected else []
    return Axis.around([claim.estimate, claim.low, claim.high, *claim.others, *bounds])


def _drawn(claim: ClaimOutcome, expected: Expectation | None, axis: Axis, *, top: int, height: int, size: float) -> str:
    middle = top + height / 2
    parts = []
    if expected:
        left, right = axis.place(expected.low), axis.place(expected.high)
        parts.append(
            f"<rect class='band' x='{left}%' width='{max(round(right - left, 2), 0.6)}%' y='{top}' height='{height}'/>"
        )
    if not math.isnan(claim.estimate):
        if claim.low != claim.high and not math.isnan(claim.low) and not math.isnan(claim.high):
            parts.append(
                f"<line class='whisker' x1='{axis.place(claim.low)}%' x2='{axis.place(claim.high)}%' "
                f"y1='{middle:g}' y2='{middle:g}'/>"
            )
        for other in claim.others:
            if not math.isnan(other):
                x, long = axis.place(other), size * 1.6
                parts.append(f"<line class='other' x1='{x}%' x2='{x}%' y1='{middle - long:g}' y2='{middle + long:g}'/>")
        mark = _MARKS.get(claim.verdict, _OTHER).format(r=f"{size:g}", d=f"{size * 1.25:g}")
        parts.append(f"<svg class='at' x='{axis.place(claim.estimate)}%' y='{middle:g}'>{mark}</svg>")
    return "".join(parts)


def _tick(place: float, label: str) -> str:
    anchor = "start" if place < 6 else "end" if place > 94 else "middle"
    return (
        f"<line class='tick' x1='{place}%' x2='{place}%' y1='36' y2='40'/>"
        f"<text x='{place}%' y='53' text-anchor='{anchor}'>{text(label)}</text>"
    )


def _apart(axis: Axis) -> list[tuple[float, str]]:
    """Ticks whose labels have room beside one another on a phone."""
    ticks = axis.ticks()
    longest = max((len(label) for _, label in ticks), default=0)
    most = max(2, 44 // (longest + 2))
    return ticks[:: math.ceil(len(ticks) / most)] if ticks else []
