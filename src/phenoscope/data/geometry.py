"""How inputs lie to one another: `separation`, the pair that is hardest to tell apart by direction."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..core.errors import InputError

_NUMBERS = 2**24  # of cosines at a time


@dataclasses.dataclass(frozen=True)
class Separation:
    """The most parallel pair of inputs.

    Attributes:
        i, j: which two, i < j.
        angle: between them, in radians.
        opposite: whether it is x_i and -x_j between which this is the angle.
    """

    i: int
    j: int
    angle: float
    opposite: bool


def separation(x: Tensor, *, opposite: bool = True) -> Separation:
    """The two inputs whose directions differ least.

    That no two inputs are parallel is what makes the Gram matrix of a wide network positive definite (Du, Zhai, Poczos
    and Singh, ICLR 2019, theorem 3.1); how nearly two are says how small its smallest eigenvalue is. The pair is found
    by cosines, in double precision, and its angle is 2 arctan(|a - b| / |a + b|) for the unit vectors a and b, which
    loses nothing where it is small.

    Args:
        x: (n, ...) inputs.
        opposite: whether x and -x count as parallel, as they are to an odd or a linear activation; to rectifiers
            they are not.

    Raises:
        InputError: fewer than two inputs, or one that is zero or not finite and so has no direction.

    Examples:
        >>> separation(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
        Separation(i=0, j=2, angle=0.0, opposite=True)
    """
    if x.ndim < 2 or len(x) < 2:
        raise InputError(f"separation needs at least two inputs (n, ...); their shape is {tuple(x.shape)}")
    flat = x.detach().flatten(1).double()
    norms = flat.norm(dim=1, keepdim=True)
    bad = (~(torch.isfinite(norms) & (norms > 0))).flatten().nonzero().flatten()
    if len(bad):
        raise InputError(f"input {int(bad[0])} is zero or not finite: it has no direction")
    unit = flat / norms
    best = (-2.0, 0, 1)
    start = 0
    for rows in unit.split(max(1, _NUMBERS // len(unit))):
        cosines = rows @ unit.T
        size = cosines.abs() if opposite else cosines
        # each pair once: in line i only what stands to the right of i
        later = (
            torch.arange(len(unit), device=x.device) > torch.arange(start, start + len(rows), device=x.device)[:, None]
        )
        size = size.masked_fill(~later, -2.0)
        place = int(size.argmax())
        if float(size.flatten()[place]) > best[0]:
            best = (float(size.flatten()[place]), start + place // len(unit), place % len(unit))
        start += len(rows)
    _, i, j = best
    a, b = unit[i], unit[j]
    turned = opposite and float(a @ b) < 0
    b = -b if turned else b
    angle = 2 * torch.atan2((a - b).norm(), (a + b).norm())
    return Separation(i, j, float(angle), turned)
