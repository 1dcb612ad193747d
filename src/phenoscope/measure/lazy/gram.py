"""Whether a network's Gram matrix stays positive definite while it trains, and the rate that this guarantees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ... import stats
from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.taps import Layer, layers, rows_at_once, suited
from ...kernels.empirical import empirical_ntk
from ...kernels.limits.deep_gram import as_matrix, last_hidden_gram
from .replay import over_states

if TYPE_CHECKING:
    import xarray

_FLOOR = 1e-12  # of the squared residual at the start: below it the decay is that of rounding


def gram_stability(
    model: nn.Module,
    states: Mapping[int, Mapping[str, Tensor]],
    x: Tensor,
    y: Tensor | None = None,
    *,
    lr: float | None = None,
    layer: Layer | None = None,
    subtract_start: bool = False,
) -> xarray.Dataset:
    """The smallest eigenvalue and the drift of Gram matrices over saved states, and whether they certify convergence.

    Full-batch descent on sum (f - y)^2 / 2 with a small rate shrinks the squared residual by 1 - lr lambda / 2 a step,
    as long as the Gram matrix keeps half of its smallest eigenvalue lambda, which it does if it drifts by at most
    lambda / 2 in spectral norm (Du, Lee, Li, Wang and Zhai, ICML 2019, sections 5 and 6). That holds for the matrix of
    all trainable parameters ("all"), and for that of one hidden layer ("layer"), from which the paper's rate is. Both
    are those of the network at hand, not of one infinitely wide, and are computed in float64.

    Args:
        model: the network that the states belong to, with outputs (N, C); left as it was found.
        states: step -> state_dict, as `train.States`; the lowest step is the one compared with.
        x: (n, ...) training inputs.
        y: (n,) or (n, C) targets, to compare the residual with what is guaranteed; needs `lr`.
        lr: the learning rate.
        layer: of `last_hidden_gram`; the last hidden layer if `None`.
        subtract_start: take f - f_0 in place of f in the residual.

    Returns:
        Over `step` and `gram` ("layer", "all"): `smallest` and `largest` eigenvalue, `drift`, |G(t) - G(0)| in spectral
        norm, and `certified`, whether smallest(t) >= smallest(0) / 2 or drift <= smallest(0) / 2. With targets, over
        `step`: `residual`, |y - f|^2, `bound` (step, gram), (1 - lr smallest(0) / 2)^t times the residual at the start,
        and `within` (step, gram), whether residual <= bound; and `rate`, a number: the squared residual's decay per
        step, fitted to all states
        before it is 1e-12 of the start (NaN for fewer than two).

    Raises:
        InputError: no states or of another network, targets without a rate or of another shape than the outputs, or
            what `last_hidden_gram` refuses.
    """
    import xarray

    if (y is None) != (lr is None):
        raise InputError("give both y and lr, or neither")
    name = None if layer is None else _name(model, layer)
    first: list[Tensor] = []
    start: list[Tensor] = []

    def observe() -> tuple[dict[str, list[float]], float]:
        twin = copy.deepcopy(model).double()
        grams = [last_hidden_gram(twin, x, layer=name), as_matrix(empirical_ntk(twin, x))]
        grams = [(gram + gram.T) / 2 for gram in grams]
        first.extend(() if first else grams)
        spectra = [_spectrum(gram) for gram in grams]
        drifts = [_spectrum(now - then).abs().max() for now, then in zip(grams, first, strict=True)]
        seen = {
            "smallest": [float(each[0]) for each in spectra],
            "largest": [float(each[-1]) for each in spectra],
            "drift": [float(each) for each in drifts],
        }
        if y is None:
            return seen, float("nan")
        outputs = _outputs(twin, x)
        target = y.to(outputs).reshape(len(y), -1)
        if target.shape != outputs.shape:
            raise InputError(f"targets have shape {tuple(y.shape)}, outputs {tuple(outputs.shape)}")
        start.extend(() if start else [outputs])
        return seen, float((target - outputs + (start[0] if subtract_start else 0)).square().sum())

    seen = over_states(model, states, observe)
    found = xarray.Dataset(
        {
            name: (("step", "gram"), np.array([values[name] for values, _ in seen.values()]))
            for name in ("smallest", "largest", "drift")
        },
        {"step": list(seen), "gram": ["layer", "all"]},
    )
    half = found.smallest.isel(step=0, drop=True) / 2
    found["certified"] = (found.smallest >= half) | (found.drift <= half)
    if lr is not None:
        found["residual"] = ("step", np.array([residual for _, residual in seen.values()]))
        found["bound"] = (1 - lr * half) ** (found.step - found.step[0]) * found.residual.isel(step=0, drop=True)
        # at the first step both are the same number
        found["within"] = found.residual <= found.bound * (1 + 1e-12)
        found["rate"] = _rate(found.residual.values, found.step.values)
    return found


def _spectrum(matrix: Tensor) -> Tensor:
    """Eigenvalues in rising order; NaN for a network that has diverged."""
    return torch.linalg.eigvalsh(matrix) if torch.isfinite(matrix).all() else matrix.diagonal() * torch.nan


def _rate(residuals: np.ndarray, steps: np.ndarray) -> float:
    if not np.isfinite(residuals).all() or len(residuals) < 2 or (residuals[:2] <= _FLOOR * residuals[0]).any():
        return float("nan")
    return stats.decay_rate(residuals, steps, above=_FLOOR).estimate


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with unchanged(model), torch.no_grad():
        return torch.cat([model(suited(model, rows)).reshape(len(rows), -1) for rows in x.split(rows_at_once(x))])


def _name(model: nn.Module, layer: Layer) -> str:
    return next(iter(layers(model, layer)))
