"""Kernels of any architecture: a tensor program is followed line by line at infinite width."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import Activation, activation
from ...theory.gaussian.moments import gaussian_moments
from .sobol import SobolNormals


def netsor(
    program: Program, *, sigma_v2: float = 1.0, points: int = 2**14, generator: torch.Generator | int | None = 0
) -> Tensor:
    """The kernel of the Gaussian process that a network of any architecture becomes at infinite width.

    A tensor program is a list of lines over vectors of width n: Gaussian inputs; products A h with random matrices, of
    which one may be used many times; linear combinations; functions applied coordinate by coordinate. As n grows, every
    coordinate of its Gaussian vectors becomes an independent draw of Gaussian variables Z, with

        cov(A h, A h') = sigma_w2 E[h(Z) h'(Z)]  for the same matrix A, and 0 for different ones,

    and outputs v . h / sqrt(n) become a Gaussian process of kernel sigma_v2 E[h(Z) h'(Z)] (Yang, "Tensor Programs I",
    NeurIPS 2019, theorem 5.4). Expectations are exact for pairs of one activation that has a closed form, at centred
    vectors; else they are means over scrambled Sobol points, in one dimension for each Gaussian vector that a product
    depends on and that does not follow from the others: errors of about 1e-5 in two dimensions for smooth functions,
    and of 1e-3 in thirty.

    Args:
        program: called with a `ProgramLimit`, whose methods are the lines; it returns the vectors h that are read out,
            such as `layernorm_program(x)`.
        sigma_v2: variance of the readout v.
        points: how many Sobol points, a power of two; as many numbers are held for each vector of one expectation.
        generator: what scrambles them; the same ones each time unless given.

    Returns:
        (k, k) for k vectors, float64, on the CPU.

    Raises:
        InputError: a program that returns no vectors, points that are no power of two, or a line that is not allowed.

    Examples:
        >>> def program(lines):  # two hidden layers that share their matrix
        ...     (x,) = lines.inputs(torch.ones(1, 1))
        ...     h = lines.apply("relu", lines.matmul("A", lines.apply("relu", x), sigma_w2=2.0))
        ...     return [h, lines.apply("relu", lines.matmul("A", h, sigma_w2=2.0))]
        >>> [round(value, 4) for value in netsor(program).flatten().tolist()]
        [0.5, 0.2469, 0.2469, 0.5]
    """
    limit = ProgramLimit(points=points, generator=generator)
    vectors = list(program(limit))
    if not vectors:
        raise InputError("the program returns no vectors: return those that are read out")
    kernel = torch.empty(len(vectors), len(vectors), dtype=torch.float64)
    for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(vectors), 2):
        kernel[i, j] = kernel[j, i] = limit.moment(a, b)
    return sigma_v2 * kernel


class ProgramLimit:
    """What the vectors of a tensor program become as its width grows; the lines of a program are calls of its methods.

    Args:
        points: how many Sobol points expectations are means over, a power of two.
        generator: what scrambles them.
    """

    def __init__(self, *, points: int = 2**14, generator: torch.Generator | int | None = 0) -> None:
        self._points = SobolNormals(points, generator)
        self._count = 0
        self._covariance = torch.zeros(16, 16, dtype=torch.float64)  # of all Gaussian vectors ...
        self._made_of = torch.zeros(16, 16, dtype=torch.float64)  # ... and each as a combination of inputs and products
        self._means: list[float] = []
        self._multiplied: dict[str, tuple[float, list[tuple[Vector, int]]]] = {}  # matrix -> its variance, h and A h
        self._drawn: tuple[list[int], dict[int, Tensor], dict[int, Tensor]] = ([], {}, {})  # Gaussian ones, others

    def inputs(self, covariance: Tensor, mean: Tensor | None = None) -> tuple[Vector, ...]:
        """Vectors whose coordinates are drawn jointly Gaussian, independent of all that stands before.

        Args:
            covariance: (k, k).
            mean: (k,); zero if `None`.
        """
        covariance = covariance.detach().to("cpu", torch.float64)
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not covariance.isfinite().all():
            raise InputError(f"a finite square covariance is needed, not one of shape {tuple(covariance.shape)}")
        means = [0.0] * len(covariance) if mean is None else mean.double().tolist()
        if len(means) != len(covariance):
            raise InputError(f"{len(covariance)} vectors cannot have {len(means)} means")
        before = torch.zeros(len(self._means), dtype=torch.float64)
        return tuple(self._gaussian(torch.cat([before, row[: i + 1]]), means[i]) for i, row in enumerate(covariance))

    def matmul(self, name: str, h: Vector, *, sigma_w2: float = 1.0) -> Vector:
        """A h, with A the (n, n) matrix of this name, of entries N(0, sigma_w2 / n): the same name, the same matrix."""
        variance, before = self._multiplied.setdefault(name, (float(sigma_w2), []))
        if variance != sigma_w2:
            raise InputError(f"matrix {name!r} was used with sigma_w2 = {variance}; it cannot also have {sigma_w2}")
        row = torch.zeros(len(self._means) + 1, dtype=torch.float64)
        for other, place in before:
            row[place] = variance * self.moment(h, other)
        row[:-1] = self._made_of[: len(row) - 1, : len(row) - 1] @ row[:-1]  # with combinations of those, too
        row[-1] = variance * self.moment(h, h)
        result = self._gaussian(row, 0.0)
        before.append((h, result._place()))
        return result

    def combine(self, vectors: Sequence[Vector], coefficients: Sequence[float]) -> Vector:
        """The sum of coefficients times Gaussian vectors: inputs, products and other combinations."""
        if len(vectors) != len(coefficients) or not vectors:
            raise InputError(f"{len(vectors)} vectors cannot be combined with {len(coefficients)} coefficients")
        places, n = [self._own(vector)._place() for vector in vectors], len(self._means)
        weights = torch.tensor([float(c) for c in coefficients], dtype=torch.float64)
        row = self._covariance[:n, places] @ weights
        mean = sum(float(w) * self._means[place] for w, place in zip(weights, places, strict=True))
        return self._gaussian(torch.cat([row, (row[places] @ weights)[None]]), mean, weights @ self._made_of[places])

    def apply(self, function: str | Activation | Callable[..., Tensor], *vectors: Vector) -> Vector:
        """A function of one or more vectors, coordinate by coordinate: an activation's name, or from tensors to one."""
        if not vectors:
            raise InputError("apply needs at least one vector")
        of = tuple(map(self._own, vectors))
        if len(of) == 1:
            act = activation(function)
            known = bool(act.slopes or act.is_erf) and of[0].place is not None and not self._means[of[0].place]
            return self._new(None, act.function, of, act if known else None)
        if isinstance(function, (str, Activation)):
            raise InputError(f"an activation takes one vector, not {len(of)}")
        return self._new(None, function, of, None)

    def moment(self, a: Vector, b: Vector | None = None) -> float:
        """The limit of the mean over coordinates of a, or of a b: a number that later lines may use."""
        self._own(a)
        if b is None:
            return self._means[a.place] if a.place is not None else self._expected(a)
        self._own(b)
        if a.place is not None and b.place is not None:
            return float(self._covariance[a.place, b.place]) + self._means[a.place] * self._means[b.place]
        if a.closed is not None and a.closed is b.closed:
            i, j = a.of[0]._place(), b.of[0]._place()
            q1, k, q2 = (self._covariance[at] for at in ((i, i), (i, j), (j, j)))
            bound = (q1 * q2).clamp_min(0).sqrt()
            return float(gaussian_moments(a.closed, q1.clamp_min(0), k.clamp(-bound, bound), q2.clamp_min(0)))
        return self._expected(a, b)

    def _new(self, place: int | None, function: Any, of: tuple[Vector, ...], closed: Activation | None) -> Vector:
        self._count += 1
        return Vector(self, self._count, place, function, of, closed)

    def _gaussian(self, row: Tensor, mean: float, made_of: Tensor | None = None) -> Vector:
        place = len(self._means)
        if place == len(self._covariance):
            self._covariance, self._made_of = _doubled(self._covariance), _doubled(self._made_of)
        self._covariance[place, : place + 1] = self._covariance[: place + 1, place] = row
        if made_of is None:
            self._made_of[place, place] = 1
        else:
            self._made_of[place, : len(made_of)] = made_of
        self._means.append(mean)
        return self._new(place, None, (), None)

    def _own(self, vector: Vector) -> Vector:
        if not isinstance(vector, Vector) or vector.limit is not self:
            raise InputError("a line takes vectors that earlier lines of this program gave")
        return vector

    def _expected(self, *factors: Vector) -> float:
        """The mean over points of a product, in as few dimensions as it depends on."""
        places = sorted(set().union(*(each.rests_on for each in factors)), reverse=True)  # the best points to the last
        if places != self._drawn[0]:
            self._drawn = (places, {}, {})  # the old ones go before the new ones come
            means = torch.tensor([self._means[place] for place in places], dtype=torch.float64)
            drawn = self._points.draw(self._covariance[places][:, places], means)
            self._drawn = (places, dict(zip(places, drawn, strict=True)), {})
        product, *others = (self._values(each) for each in factors)
        for other in others:
            product = product * other
        return float(product.mean())

    def _values(self, vector: Vector) -> Tensor:
        _, gaussian, others = self._drawn
        if vector.place is not None:
            return gaussian[vector.place]
        if vector.number not in others:
            values = vector.function(*map(self._values, vector.of))
            if not isinstance(values, Tensor) or values.shape != (self._points.points,) or not values.isfinite().all():
                raise InputError("a function that is applied must give one finite number for each coordinate")
            others[vector.number] = values
        return others[vector.number]


def _doubled(matrix: Tensor) -> Tensor:
    return torch.nn.functional.pad(matrix, (0, len(matrix), 0, len(matrix)))


@dataclasses.dataclass(frozen=True, eq=False)
class Vector:
    """A vector of a tensor program, as its lines give and take it.

    Attributes:
        limit: the program that it belongs to.
        number: among all vectors.
        place: among the Gaussian ones; `None` for a function of others.
        function, of: what is applied, and to which vectors.
        closed: the activation, where products of two have a closed form.
    """

    limit: ProgramLimit
    number: int
    place: int | None
    function: Callable[..., Tensor]
    of: tuple[Vector, ...]
    closed: Activation | None

    @functools.cached_property
    def rests_on(self) -> frozenset[int]:
        """The places of the Gaussian vectors that it is a function of."""
        return frozenset([self.place]) if self.place is not None else frozenset().union(*(v.rests_on for v in self.of))

    def _place(self) -> int:
        if self.place is None:
            raise InputError("only Gaussian vectors can be combined: multiply by a matrix first, or use apply")
        return self.place


Program = Callable[[ProgramLimit], Sequence[Vector]]
