"""Mean-field theory of deep fully connected networks: fixed points, depth scales, the border of order and chaos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

from scipy.optimize import brentq

from ...core.errors import InputError
from ..gaussian.activations import Activation, Function, activation
from ..gaussian.moments import gaussian_moments

_TINY, _HUGE = 1e-12, 1e8  # lengths taken for zero and for infinity
_AT_BORDER = 1e-8  # chi1 this near to 1 is 1


@dataclasses.dataclass(frozen=True)
class MeanField:
    """Where lengths and correlations go in a wide random network, and over how many layers.

    Attributes:
        q_star: fixed point of the pre-activations' variance; `inf` where it grows without bound.
        c_star: stable fixed point of the correlation of two inputs.
        chi1: factor of the squared gradient per layer, and slope of the correlation map at 1 without dropout.
        chi_c: slope of the correlation map at `c_star`.
        xi_q: layers in which a deviation from `q_star` falls by e.
        xi_c: layers in which a deviation from `c_star` falls by e; `inf` where it falls more slowly than exponentially.
        xi_grad: -1 / ln chi1; positive where gradients vanish, negative where they explode, by e in |xi_grad| layers.
        phase: "ordered" (chi1 < 1), "critical", "chaotic" (chi1 > 1), or "unbounded" (no `q_star`; `c_star`, `chi_c`,
            `xi_q` and `xi_c` are NaN then).
    """

    q_star: float
    c_star: float
    chi1: float
    chi_c: float
    xi_q: float
    xi_c: float
    xi_grad: float
    phase: Literal["ordered", "critical", "chaotic", "unbounded"]


@dataclasses.dataclass(frozen=True)
class CriticalInit:
    """Variances on the border between order and chaos: weights of `sigma_w2 / fan_in`, biases of `sigma_b2`."""

    sigma_w2: float
    sigma_b2: float


def mean_field(
    act: str | Function | Activation, sigma_w2: float, sigma_b2: float, *, dropout_keep: float = 1.0
) -> MeanField:
    """Fixed points and depth scales of a random network (Poole et al., NeurIPS 2016; Schoenholz et al., ICLR 2017).

    With weights of variance sigma_w2 / fan_in and biases of variance sigma_b2, q -> V(q) = sigma_w2 E f(sqrt(q) z)^2 +
    sigma_b2 has the fixed point q*; there c -> C(c) = (sigma_w2 E f(u) f(v) + sigma_b2) / q* with var u = var v = q*
    and correlation c. chi1 = sigma_w2 E f'(sqrt(q*) z)^2 = C'(1), chi_c = sigma_w2 E f'(u) f'(v) at c*. Depth scales
    are -1 / ln of V'(q*), chi_c and chi1. C is convex on [0, 1], so that beside the fixed point at 1 there is exactly
    one more, and it is the stable one, if and only if chi1 > 1. Dropout that keeps a share rho divides sigma_w2 by rho
    in V and in chi1, but not in E f(u) f(v), where two masks are independent.

    Where V has no positive fixed point and no bias, all tends to zero: scales are then those of the limit of small
    biases. ReLU keeps every length at sigma_w2 = 2, sigma_b2 = 0: correlations tend to 1, by a power law (`xi_c` is
    `inf`); below 2 the network is ordered.

    Args:
        act: the activation (`theory.activation`).
        sigma_w2: variance of weights times fan-in.
        sigma_b2: variance of biases.
        dropout_keep: share of units that dropout keeps.

    Raises:
        InputError: variances that are not positive (`sigma_b2` may be 0), or a share outside (0, 1].

    Examples:
        >>> found = mean_field("tanh", 1.3, 0.05)
        >>> round(found.q_star, 3), round(found.chi1, 2), round(found.xi_c, 2), found.phase
        (0.315, 0.88, 7.83, 'ordered')
    """
    act = activation(act)
    if not (sigma_w2 > 0 and math.isfinite(sigma_w2) and sigma_b2 >= 0 and math.isfinite(sigma_b2)):
        raise InputError(f"sigma_w2 must be positive and sigma_b2 not negative, not {sigma_w2!r} and {sigma_b2!r}")
    if not 0 < dropout_keep <= 1:
        raise InputError(f"dropout_keep must be above 0 and at most 1, not {dropout_keep!r}")
    kept = sigma_w2 / dropout_keep
    q_star, q, chi1 = _lengths(act, kept, sigma_b2)
    at_border = abs(chi1 - 1) < _AT_BORDER
    xi_grad = math.inf if at_border else -1 / math.log(chi1)
    if math.isinf(q_star):
        nan = math.nan
        return MeanField(math.inf, nan, chi1, nan, nan, nan, xi_grad, "unbounded")

    def correlation_map(c: float) -> float:
        # by one rule of quadrature above and below, so that 1 stays a fixed point to the last digit
        return (sigma_w2 * _pair(act, q, c) + sigma_b2) / (kept * _pair(act, q, 1.0) + sigma_b2)

    if dropout_keep == 1 and (chi1 <= 1 or at_border):
        c_star, chi_c = 1.0, chi1
    else:
        c_star = _fixed_correlation(correlation_map, one_is_fixed=dropout_keep == 1)
        chi_c = sigma_w2 * _pair(act, q, c_star, derivative=True)
    phase: Literal["ordered", "critical", "chaotic"] = "critical" if at_border else "ordered" if chi1 < 1 else "chaotic"
    return MeanField(q_star, c_star, chi1, chi_c, _scale(kept * _slope(act, q)), _scale(chi_c), xi_grad, phase)


def critical_line(act: str | Function | Activation, sigma_b2: float) -> float:
    """The weight variance sigma_w2 at which chi1 = 1: the border between order and chaos at this bias variance.

    Args:
        act: the activation.
        sigma_b2: variance of biases.

    Raises:
        InputError: a negative variance, or an activation without a border.

    Examples:
        >>> round(critical_line("relu", 0.0), 9)
        2.0
    """
    act = activation(act)
    if not (sigma_b2 >= 0 and math.isfinite(sigma_b2)):
        raise InputError(f"sigma_b2 must not be negative, not {sigma_b2!r}")

    def excess(sigma_w2: float) -> float:
        return math.log(_lengths(act, sigma_w2, sigma_b2)[2])

    low = high = 1.0
    while excess(low) > 0 and low > 1e-6:
        low /= 2
    while excess(high) < 0 and high < 1e6:
        high *= 2
    if low <= 1e-6 or high >= 1e6:
        raise InputError(f"{act.name} has no sigma_w2 between 1e-6 and 1e6 at which gradients keep their size")
    return low if low == high else float(brentq(excess, low, high, xtol=1e-13, rtol=1e-14))


def critical_gain(act: str | Function | Activation, q: float) -> float:
    """The gain sigma_w at which gradients keep their size where pre-activations have variance q: sigma_w2 E f'^2 = 1.

    Args:
        act: the activation.
        q: the variance of pre-activations.

    Raises:
        InputError: a variance that is not positive.

    Examples:
        >>> round(critical_gain("relu", 1.0) ** 2, 9)
        2.0
    """
    if not (q > 0 and math.isfinite(q)):
        raise InputError(f"q must be positive, not {q!r}")
    return _second(activation(act), q, derivative=True) ** -0.5


def critical_init(act: str | Function | Activation, q: float) -> CriticalInit:
    """The point of the border between order and chaos whose fixed point is q: sigma_b2 = q - sigma_w2 E f(sqrt(q) z)^2.

    A small q makes tanh and its kind nearly linear, and so, with orthogonal weights, nearly an isometry (Pennington,
    Schoenholz and Ganguli, NeurIPS 2017).

    Args:
        act: the activation.
        q: the fixed point wanted.

    Raises:
        InputError: a q that is not positive, or one that would need a negative bias variance.

    Examples:
        >>> found = critical_init("tanh", 0.5)
        >>> round(mean_field("tanh", found.sigma_w2, found.sigma_b2).q_star, 9)
        0.5
    """
    act = activation(act)
    sigma_w2 = critical_gain(act, q) ** 2
    sigma_b2 = q - sigma_w2 * _second(act, q)
    if sigma_b2 < -1e-12 * q:
        raise InputError(
            f"{act.name} has no critical point with q = {q!r}: biases would need the variance {sigma_b2:.3g}"
        )
    return CriticalInit(sigma_w2, max(sigma_b2, 0.0))


def _lengths(act: Activation, sigma_w2: float, sigma_b2: float) -> tuple[float, float, float]:
    """q*, the finite positive length that stands for it, and chi1 there."""
    q_star = _fixed_length(lambda q: sigma_w2 * _second(act, q) + sigma_b2)
    q = min(max(q_star, _TINY), _HUGE)
    return q_star, q, sigma_w2 * _second(act, q, derivative=True)


def _fixed_length(length: Callable[[float], float]) -> float:
    """The stable fixed point that is reached from length 1."""
    if math.isclose(length(1.0), 1.0, rel_tol=1e-14):
        return 1.0
    step = 0.5 if length(1.0) < 1 else 2.0
    before, q = 1.0, step
    while _TINY < q < _HUGE:
        if (length(q) < q) != (step < 1):
            return float(brentq(lambda at: length(at) - at, *sorted((before, q)), xtol=1e-16, rtol=1e-14))
        before, q = q, q * step
    return 0.0 if step < 1 else math.inf


def _fixed_correlation(correlation_map: Callable[[float], float], *, one_is_fixed: bool) -> float:
    """The fixed point below 1; where the map touches 1, the search ends a little before."""
    if correlation_map(0.0) < 1e-14:  # odd activations without biases: 0 stays 0, up to rounding
        return 0.0
    if not one_is_fixed:
        return float(brentq(lambda c: correlation_map(c) - c, 0.0, 1.0, xtol=1e-14))
    for gap in (10.0**-k for k in range(1, 10)):
        if correlation_map(1 - gap) < 1 - gap:
            return float(brentq(lambda c: correlation_map(c) - c, 0.0, 1 - gap, xtol=1e-14))
    return 1.0


def _second(act: Activation, q: float, *, derivative: bool = False) -> float:
    return float(gaussian_moments(act, q, power=2, derivative=derivative))


def _pair(act: Activation, q: float, c: float, *, derivative: bool = False) -> float:
    return float(gaussian_moments(act, q, c * q, derivative=derivative))


def _slope(act: Activation, q: float) -> float:
    """d/dq E f(sqrt(q) z)^2 = E[f'^2 + f f''], by a central difference: f'' is no function where f has kinks."""
    h = 1e-4  # relative; the error is its square, rounding adds 1e-11
    up, down = (_second(act, q * (1 + side * h)) for side in (1, -1))
    return (up - down) / (2 * h * q)


def _scale(slope: float) -> float:
    """Layers in which what is multiplied by this slope falls by e."""
    if abs(slope - 1) < _AT_BORDER:
        return math.inf
    return -1 / math.log(abs(slope)) if slope else 0.0
