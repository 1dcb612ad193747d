"""What measures of complexity are made of, each computed once and only if a measure asks for it."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...models.surgery.norm import fold_norm
from ..margins.output import margin
from ..weights.norms import check_state, distances, norms, path_norm
from .pac_bayes import noise_scale, sharpness_radius


def folded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its batch norms part of the layers before them as far as they can be."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        try:
            return fold_norm(model)
        except InputError:
            pass
    return copy.deepcopy(model).eval()


class Facts:
    """A trained network, the same before training, and what is known of them."""

    def __init__(
        self,
        model: nn.Module,
        init_state: Mapping[str, Tensor] | None,
        loss_fn: Callable[[Any, Any], Tensor],
        data: tuple[Tensor, Tensor],
        *,
        history: Any,
        levels: tuple[float, float],
        spectral: Any,
        drop: float,
        draws: int,
        ascent: int,
        search: int,
        generator: int,
    ) -> None:
        self.model = folded(model)
        self.loss_fn, self.data = loss_fn, data
        self.history, self.levels, self.spectral = history, levels, spectral
        self.noise: dict[str, Any] = {"drop": drop, "search": search, "draws": draws, "generator": generator}
        self.ascent: dict[str, Any] = {"drop": drop, "search": search, "ascent": ascent}
        self.start: dict[str, Tensor] | None = None
        if init_state is not None:
            check_state(model, init_state)
            before = copy.deepcopy(model)
            before.load_state_dict(init_state, strict=False)
            self.start = {name: value.detach() for name, value in folded(before).named_parameters()}

    @property
    def n(self) -> int:
        """Training examples."""
        return len(self.data[1])

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Squared norms by layer, and `two_one` as it is."""
        return _squared(norms(self.model, self.data[0], spectral=self.spectral))

    @functools.cached_property
    def moved(self) -> dict[str, np.ndarray]:
        """The same of the way from the initialization; NaN if that is not known."""
        if self.start is None:
            return {name: np.full_like(values, np.nan) for name, values in self.weights.items()}
        return _squared(distances(self.model, self.start, self.data[0], spectral=self.spectral))

    @functools.cached_property
    def margin(self) -> float:
        """The 10th percentile of the margin over examples, squared; NaN where it is not positive."""
        values = margin(self.model, self.data).double()
        low = float(values.sort().values[max(0, math.ceil(0.1 * len(values)) - 1)])
        return low**2 if low > 0 else math.nan

    @functools.cached_property
    def path(self) -> float:
        return float(path_norm(self.model, self.data[0]))

    @functools.cached_property
    def entropy(self) -> float:
        """Mean entropy of the softmax of the outputs."""
        with torch.no_grad():
            parts = [self.model(x).log_softmax(1).double() for x in self.data[0].split(512)]
        return -float(torch.cat([(p.exp() * p).sum(1) for p in parts]).mean())

    @functools.cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """All parameters now, and how far each has moved (NaN if not known), in double precision."""
        now = {name: value.detach().double() for name, value in self.model.named_parameters()}
        moved = {n: v - self.start[n].double() if self.start is not None else v * math.nan for n, v in now.items()}
        return torch.cat([v.flatten() for v in now.values()]), torch.cat([v.flatten() for v in moved.values()])

    @functools.cached_property
    def sigma(self) -> float:
        """The noise that all parameters bear."""
        return noise_scale(self.model, self.data, relative=False, **self.noise)

    @functools.cached_property
    def relative_sigma(self) -> float:
        """The same in proportion to each parameter."""
        return noise_scale(self.model, self.data, relative=True, **self.noise)

    @functools.cached_property
    def alpha(self) -> float:
        """The radius within which no perturbation does harm."""
        return sharpness_radius(self.model, self.loss_fn, self.data, relative=False, **self.ascent)

    @functools.cached_property
    def relative_alpha(self) -> float:
        """The same in proportion to each parameter."""
        return sharpness_radius(self.model, self.loss_fn, self.data, relative=True, **self.ascent)


def _squared(table: Any) -> dict[str, np.ndarray]:
    return {
        "spectral": table.spectral.values**2,
        "frobenius": table.frobenius.values**2,
        "two_one": table.two_one.values,
    }
