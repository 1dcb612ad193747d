"""Jointly Gaussian variables at quasi-random points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import child_seeds

_BLOCK = 32  # dimensions made at once
_DEPENDENT = 1e-10  # a variable with less variance of its own, relative to its whole variance, follows from the others


class SobolNormals:
    """Scrambled Sobol points mapped to Gaussian variables of any covariance; always the same points.

    Args:
        points: how many, a power of two.
        generator: what scrambles them.
    """

    def __init__(self, points: int, generator: torch.Generator | int | None) -> None:
        if points < 2 or points & (points - 1):
            raise InputError(f"points must be a power of two, not {points}")
        self.points = points
        self._seeds = np.random.SeedSequence(child_seeds(generator, 1)[0])
        self._normals = torch.empty(0, points, dtype=torch.float64)

    def draw(self, covariance: Tensor, mean: Tensor) -> Tensor:
        """(k, points) of variables of a (k, k) covariance, in one dimension for each that is not fixed by those before.

        The first variables get the first dimensions, which are filled most evenly.
        """
        root = torch.zeros_like(covariance)
        free: list[int] = []
        for i in range(len(covariance)):  # Cholesky's factor, without a column where nothing is left
            known = covariance[i, free][:, None]
            row = torch.linalg.solve_triangular(root[free, : len(free)], known, upper=False)[:, 0]
            root[i, : len(free)] = row
            own = float(covariance[i, i] - row @ row)
            if own > _DEPENDENT * float(covariance[i, i]):
                root[i, len(free)] = own**0.5
                free.append(i)
        while len(self._normals) < len(free):
            self._normals = torch.cat([self._normals, self._more(len(self._normals))])
        return root[:, : len(free)] @ self._normals[: len(free)] + mean[:, None]

    def _more(self, start: int) -> Tensor:
        # Dimensions are scrambled independently, so that later ones may be added to those there are.
        from scipy.stats import qmc

        limit: Any = qmc.Sobol.MAXDIM
        if start + _BLOCK > limit:
            raise InputError(f"an expectation is over more than {start} variables, too many for Sobol points")
        engine = qmc.Sobol(start + _BLOCK, rng=np.random.default_rng(self._seeds.spawn(1)[0]))
        uniform = torch.from_numpy(engine.random(self.points)[:, start:].T.copy())
        return torch.special.ndtri(uniform + 2.0**-31)  # points are multiples of 2^-30, zero among them
