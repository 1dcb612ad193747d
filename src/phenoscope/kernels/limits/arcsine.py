"""The arcsine and the root of 1 - x^2 as polynomials, which a processor can take of many numbers at once.

With z = x^2 where |x| <= 1/2 and z = (1 - |x|) / 2 beyond, asin(x) is x P(z) or pi/2 - 2 sqrt(z) P(z), and
sqrt(1 - x^2) is R(z) or 2 sqrt(z) R(z), where P(z) = asin(sqrt z) / sqrt z and R(z) = sqrt(1 - z) are smooth on
[0, 1/4]: one square root and two polynomials.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DEGREES = {"float32": 6, "float64": 14}
ROUNDING = 8  # units: a correlation as near to 1 counts as 1


def polynomials(dtype: str) -> tuple[list[float], list[float]]:
    """The coefficients of P and of R in powers of z - 1/8, from the constant up, as exact as the dtype asks for."""
    return _fitted(_arcsine, DEGREES[dtype]), _fitted(lambda z: np.sqrt(1 - z), DEGREES[dtype])


def _arcsine(z: np.ndarray) -> np.ndarray:
    return np.arcsin(np.sqrt(z)) / np.sqrt(z)


def _fitted(function: Callable[[np.ndarray], np.ndarray], degree: int) -> list[float]:
    """A polynomial as good as any on [0, 1/4], through the Chebyshev nodes.

    About the middle the powers are small, so that the sum loses no digits; the fit is in extended precision.
    """
    angles = np.arccos(np.longdouble(-1)) * (np.arange(degree + 1, dtype=np.longdouble) + 0.5) / (degree + 1)
    values = function((1 + np.cos(angles)) / 8)
    series = [2 * (values * np.cos(k * angles)).mean() for k in range(degree + 1)]
    series[0] /= 2
    return [float(each) * 8.0**power for power, each in enumerate(np.polynomial.chebyshev.cheb2poly(series))]
