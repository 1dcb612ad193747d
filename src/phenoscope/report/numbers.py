"""Numbers as a page writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MOST_DIGITS = 12


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, a true minus sign, and powers of ten where it is long.

    Examples:
        >>> [number(value) for value in (0.25, -3.14159, 1234567.0, 2e-7, math.inf, math.nan)]
        ['0.25', '−3.142', '1.235×10⁶', '2×10⁻⁷', '∞', '–']
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = math.floor(math.log10(abs(value))) if value else 0
    if -4 <= size < max(digits, 5):
        plain = f"{value:.{max(digits - 1 - size, 0)}f}"
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        return plain.replace("-", "−")
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}×10{str(int(power)).translate(_RAISED)}".replace("-", "−")


def numbers(values: Sequence[float], apart_from: Sequence[float] = ()) -> list[str]:
    """Numbers with as few digits as tell them from one another and from further ones.

    Examples:
        >>> numbers([0.99987], apart_from=[0.9999])
        ['0.99987']
    """
    everything = {value for value in (*values, *apart_from) if math.isfinite(value)}
    digits = 3
    while digits < _MOST_DIGITS and len({number(value, digits) for value in everything}) < len(everything):
        digits += 1
    return [number(value, digits) for value in values]


def amount(count: int, thing: str) -> str:
    """A count with its noun.

    Examples:
        >>> amount(1, "paper"), amount(3, "study")
        ('1 paper', '3 studies')
    """
    several = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{count} {thing if count == 1 else several}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
