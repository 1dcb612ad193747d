"""How much the tangent kernel of a finite network fluctuates from one initialization to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ...core.errors import InputError

# Second moments of the mean-1 factors of a layer of width n are 1 + c / n: of one that forward or backward passes share
# (a sum of squares), and of a forward pass with another term's backward pass (the mask alone).
_SHARED = {"relu": 5.0, "linear": 2.0}
_MASK = {"relu": 1.0, "linear": 0.0}


def ntk_fluctuation(widths: Sequence[int], *, act: Literal["relu", "linear"] = "relu") -> float:
    """E K(x, x)^2 / (E K(x, x))^2 over initializations, K the tangent kernel of the weights of a random network.

    K is a sum over the d + 1 layers of terms of mean 1. Two terms j < k share the passes through the hidden layers
    below j and above k, where their product has second moment 1 + 5 / n a layer, and in the layers between them only
    the ReLU's mask, 1 + 1 / n:

        R = (d + 1)^-2 sum_jk prod_{i not between} (1 + 5 / n_i) prod_{i between} (1 + 1 / n_i),

    correct to O(1 / n) a layer. With beta the sum of inverse widths it grows like exp(5 beta), the paper's statement up
    to constant factors (Hanin and Nica, "Finite Depth and Width Corrections to the Neural Tangent Kernel", ICLR 2020,
    theorem 1). For linear networks the two factors are 1 + 2 / n and 1.

    Args:
        widths: of the hidden layers, in order; none is a linear model, whose kernel is certain.
        act: the activation.

    Returns:
        The ratio, at least 1, for networks without biases, with independent Gaussian weights of variance 2 / fan-in
        ("linear": 1 / fan-in) and one output.

    Raises:
        InputError: a width below 1, or an unknown activation.

    Examples:
        >>> ntk_fluctuation([]), ntk_fluctuation([10], act="linear")
        (1.0, 1.1)
    """
    if act not in _SHARED:
        raise InputError(f"act must be one of {', '.join(_SHARED)}, not {act!r}")
    n = np.asarray(list(widths), dtype=np.float64)
    if n.ndim != 1 or not (n >= 1).all():
        raise InputError(f"widths must be at least 1, not {list(widths)}")
    shared, between = (np.append(0, np.log1p(c[act] / n).cumsum()) for c in (_SHARED, _MASK))
    rest = np.abs((between - shared)[:, None] - (between - shared))  # of layers between, in place of what they share
    return float(np.exp(shared[-1] - rest).mean())
