"""All patterns of a few bits, labelled by a rule that is known."""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import seeded
from ..split import Split

_BISECTIONS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Bits(Split):
    """A `Split` of all the inputs there are, with the law of their labels.

    Attributes:
        inputs: all of them, (2^bits, bits), -1 or 1.
        score: (2^bits,), what the rule is a threshold of.
        probabilities: p(y | x) of every input, (2^bits, 2), in double precision.
    """

    inputs: Tensor
    score: Tensor
    probabilities: Tensor

    def to(self, device: torch.device | str) -> Bits:
        """The same with every tensor on a device."""
        moved = super().to(device)
        parts = {part: getattr(moved, part) for part in ("train", "validation", "test")}
        whole = {name: getattr(self, name).to(device) for name in ("inputs", "score", "probabilities")}
        return dataclasses.replace(self, **parts, **whole)


def hypercube(
    *, bits: int = 8, degree: int = 1, train: int | None = None, generator: torch.Generator | int | None = 0
) -> Bits:
    """All 2^bits patterns of -1 and 1, labelled by the parity of the first `degree` bits.

    Parities are the eigenfunctions of every kernel of inner products on the cube, with an eigenvalue that only their
    degree decides, C(bits, degree) times each: the target of Simon, Dickens, Karkada and DeWeese, "The Eigenlearning
    Framework" (TMLR 2023), whose spectrum is known in closed form.

    Args:
        bits: from 1 to 20.
        degree: how many of them are multiplied; 0 is a constant.
        train: how many of the patterns, chosen at random, are for training; three quarters if `None`.
        generator: what chooses them.

    Returns:
        Patterns (N, bits), float32, and labels, 1 where the product of the bits is 1; `score` is this product.

    Raises:
        InputError: a number out of range.

    Examples:
        >>> cube = hypercube(bits=3, degree=2)
        >>> cube.inputs[5].tolist(), cube.score[5].item()
        ([1.0, -1.0, 1.0], -1.0)
    """
    if not 1 <= bits <= 20 or not 0 <= degree <= bits:
        raise InputError(f"bits must be from 1 to 20 and degree from 0 to bits, not {bits} and {degree}")
    numbers = torch.arange(2**bits)
    x = 2.0 * ((numbers[:, None] >> torch.arange(bits - 1, -1, -1)) & 1) - 1
    score = x[:, :degree].prod(1).double()
    count = len(x) * 3 // 4 if train is None else train
    if not 1 <= count < len(x):
        raise InputError(f"train must be from 1 to {len(x) - 1}, not {count}")
    generator = seeded(generator)
    order = torch.randperm(len(x), generator=generator, device=generator.device).cpu()
    y, (rows, rest) = (score > 0).long(), (order[:count], order[count:])
    return Bits(
        train=(x[rows], y[rows]), validation=None, test=(x[rest], y[rest]), range=(-1.0, 1.0),
        classes=("odd", "even"), name="hypercube", inputs=x, score=score,
        probabilities=torch.stack([score < 0, score > 0], 1).double(),
    )  # fmt: skip


def icosahedral_bits(
    *, train: int = 3277, information: float | None = None, generator: torch.Generator | int | None = 0
) -> Bits:
    """All 4096 patterns of 12 bits, labelled by a rule that no rotation of the sphere changes.

    Bit i says whether vertex v_i of a regular icosahedron is occupied. With b in {0, 1}, the score is

        f(b) = |sum_i b_i v_i|^2 + |sum_i b_i (v_i v_i' - I / 3)|_F^2 / 2,

    the power in the first two degrees of the occupied points, which takes 34 values; the label says whether it is above
    its median. It is even, f(1 - b) = f(b), so that no single bit tells anything about the label. The task has the
    symmetry of that of Shwartz-Ziv and Tishby, "Opening the Black Box of Deep Neural Networks via Information" (2017,
    section 3.1), 12 points on a sphere and a rule invariant under O(3); the rule is our own.

    Args:
        train: how many of the patterns, chosen at random, are for training; the others are the test part.
        information: I(X;Y) in bits, below 1: labels are drawn from p(y = 1 | x) = 1 / (1 + exp(-g (f - c))) with c
            midway between the median and the value above it, and g such that they have this information. `None`: the
            label is certain.
        generator: what chooses the training part and draws the labels.

    Returns:
        Patterns (N, 12) of -1 and 1, float32, and labels (N,), int64; and all of it with p(y | x).

    Raises:
        InputError: a number out of range.

    Examples:
        >>> bits = icosahedral_bits()
        >>> bits.inputs.shape, len(bits.train[1]), len(bits.test[1])
        (torch.Size([4096, 12]), 3277, 819)
    """
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12)), dtype=torch.float64)
    if not 1 <= train < len(patterns):
        raise InputError(f"train must be from 1 to {len(patterns) - 1}, not {train}")
    points = _icosahedron()
    planes = points[:, :, None] * points[:, None, :] - torch.eye(3, dtype=torch.float64) / 3
    score = (patterns @ points).square().sum(1) + (patterns @ planes.flatten(1)).square().sum(1) / 2
    score = (score * 1e6).round() / 1e6  # equal values must be equal
    median = score.median()
    middle = (median + score[score > median].min()) / 2
    high = (score > middle).double() if information is None else _soft(score - middle, information)
    generator = seeded(generator)
    device = generator.device
    order = torch.randperm(len(patterns), generator=generator, device=device).cpu()
    draws = torch.rand(len(patterns), generator=generator, device=device, dtype=torch.float64).cpu()
    x, y = (2 * patterns - 1).float(), (draws < high).long()
    rows, rest = order[:train], order[train:]
    return Bits(
        train=(x[rows], y[rows]), validation=None, test=(x[rest], y[rest]), range=(-1.0, 1.0),
        classes=("low", "high"), name="icosahedral_bits", inputs=x, score=score,
        probabilities=torch.stack([1 - high, high], 1),
    )  # fmt: skip


def _icosahedron() -> Tensor:
    """Its twelve vertices, (12, 3), of length 1."""
    golden = (1 + math.sqrt(5)) / 2
    signs = itertools.product((-1.0, 1.0), repeat=2)
    corners = [(0.0, a, b * golden) for a, b in signs]
    vertices = torch.tensor([[*c[turn:], *c[:turn]] for c in corners for turn in range(3)], dtype=torch.float64)
    return vertices / vertices.norm(dim=1, keepdim=True)


def _soft(distance: Tensor, information: float) -> Tensor:
    """p(y = 1 | x) that rises with the distance so steeply that I(X;Y) is as wanted; it grows with the steepness."""

    def known(p: Tensor) -> float:
        return float(_entropy(p.mean()) - _entropy(p).mean())

    certain = known((distance > 0).double())
    if not 0 < information < certain:
        raise InputError(f"information must be above 0 and below {certain:.5f} bits, not {information}")
    low, high = 0.0, 1.0
    while known(torch.sigmoid(high * distance)) < information:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if known(torch.sigmoid(middle * distance)) < information else (low, middle)
    return torch.sigmoid(high * distance)


def _entropy(p: Tensor) -> Tensor:
    """Of a coin, in bits."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)
