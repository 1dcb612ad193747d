"""Measures of complexity by which people have hoped to tell how well a network generalizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.random import child_seeds
from ...data.batches import Data, as_tensors
from ...train.outputs import placed
from .by_optimization import OPTIMIZATION
from .facts import Facts
from .flatness import FLATNESS
from .norm_based import MARGIN, NORM, PATH, SIZE, SPECTRAL

if TYPE_CHECKING:
    import xarray

FAMILIES = {
    "size": SIZE, "margin": MARGIN, "spectral": SPECTRAL, "norm": NORM, "path": PATH, "flatness": FLATNESS,
    "optimization": OPTIMIZATION,
}  # fmt: skip


def complexity(
    model: nn.Module,
    init_state: Mapping[str, Tensor] | None,
    loss_fn: Callable[[Any, Any], Tensor],
    train_data: Data,
    *,
    which: str | Sequence[str] = "all",
    history: xarray.Dataset | xarray.DataArray | None = None,
    levels: tuple[float, float] = (0.1, 0.01),
    spectral: Literal["operator", "matrix"] = "operator",
    drop: float = 0.1,
    draws: int = 10,
    ascent: int = 20,
    search: int = 12,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Measures of complexity of a trained network, after Jiang, Neyshabur, Mobahi, Krishnan and Bengio (ICLR 2020).

    Larger should mean a larger gap between training and test accuracy. w are all parameters, w0 the same before
    training, W_l the weights of layer l (d of them; kernels with one row for each output), ||.|| the spectral norm,
    gamma the 10th percentile of the margin over the examples, m examples, P parameters. Batch normalization is folded
    into the layers before it first, where it stands right behind them in an `nn.Sequential`.

    - size: `params` P.
    - margin: `inverse-margin` 1/gamma^2; `neg-entropy` of the softmax, mean.
    - spectral: `log-prod-spec` sum log ||W_l||^2; `sum-spec` d (prod ||W_l||^2)^(1/d); both `/margin`: the product over
      gamma^2; `fro/spec` sum ||W_l||_F^2 / ||W_l||^2; `log-spec-orig` the log of the product over gamma^2 times that
      sum, `log-spec-init` with W_l - W0_l in its numerators; `dist-spec` sum ||W_l - W0_l||^2; `log-bartlett` the log
      of prod ||W_l||^2 / gamma^2 (sum (||(W_l - W0_l)^T||_{2,1} / ||W_l||)^(2/3))^3.
    - norm: `log-prod-fro`, `sum-fro` and both `/margin` likewise; `param-norm` sum ||W_l||_F^2; `frob-dist`
      sum ||W_l - W0_l||_F^2.
    - path: `path-norm`, as the function of that name, and `/margin`.
    - flatness: `pacbayes-flat` 1/sigma^2, sigma the largest spread of noise on w that costs at most `drop` of training
      accuracy on average; `pacbayes-mag-flat` with a spread in proportion to each weight; `sharpness-flat` and
      `sharpness-mag-flat` 1/alpha^2, alpha the largest radius in which the worst perturbation costs no more.
      `-orig` and `-init`: the PAC-Bayes bounds that go with them, around the origin and around w0,
      ||v||^2 / (4 sigma^2) + log(m / sigma), for sharpness with sigma = alpha / sqrt(log 2P), and relative to each
      weight 1/4 sum_i log((eps^2 + (sigma^2 + 1) ||v||^2 / P) / (eps^2 + sigma^2 (w_i - w0_i)^2)) + log(m / sigma).
    - optimization: `steps-to-first` until the loss was down to the first level, `steps-first-to-second`, and
      `gradient-noise`, the trace of the covariance of single examples' gradients.

    Args:
        model: from a batch to scores (N, C), any number of layers of any kind; it works in evaluation mode.
        init_state: its `state_dict` before training; `None` leaves out what needs it.
        loss_fn: from outputs and labels to their mean loss.
        train_data: examples and classes that it was trained on, or enough of them.
        which: "all", or names of measures or of families.
        history: `loss` over `step` while it was trained, for the steps.
        levels: of the loss.
        spectral: the norm of a convolution, as in `norms`.
        drop: of accuracy, that noise may cost.
        draws: of noise, the same at every scale.
        ascent: steps of the search for the worst perturbation.
        search: bisections of the scale between 1e-5 and 1.
        generator: what noise is drawn from.

    Returns:
        `value` over `measure`, with the coordinate `family`. NaN where a measure is not defined for the network: a
        margin that is not positive, a scale out of range, a path norm where something is not homogeneous, a level
        that the loss has not reached, no history, no initialization.

    Raises:
        InputError: a name that is no measure, data that cannot be stacked, or an initialization that does not match.
    """
    import xarray

    chosen = _chosen(which)
    if draws < 1 or ascent < 1 or search < 1 or not 0 < drop < 1:
        raise InputError("draws, ascent and search must be at least 1, and drop between 0 and 1")
    x, y = as_tensors(train_data)
    with unchanged(model):
        facts = Facts(
            model, init_state, loss_fn, placed(x, y, model), history=history, levels=levels,
            spectral=spectral, drop=drop, draws=draws, ascent=ascent, search=search,
            generator=generator if isinstance(generator, int) else child_seeds(generator, 1)[0],
        )  # fmt: skip
        values = [_defined(FAMILIES[family][name], facts) for name, family in chosen.items()]
    return xarray.Dataset(
        {"value": ("measure", np.array(values))},
        {"measure": list(chosen), "family": ("measure", list(chosen.values()))},
    )


def _chosen(which: str | Sequence[str]) -> dict[str, str]:
    """Name of a measure -> its family, in the order of the families."""
    everything = {name: family for family, measures in FAMILIES.items() for name in measures}
    if which == "all":
        return everything
    asked = {which} if isinstance(which, str) else set(which)
    if unknown := asked - set(everything) - set(FAMILIES):
        names = ", ".join([*FAMILIES, *everything])
        raise InputError(f'there is no measure {min(unknown)!r}: "all", a family or a measure is one of {names}')
    return {name: family for name, family in everything.items() if name in asked or family in asked}


def _defined(measure: Callable[[Facts], float], facts: Facts) -> float:
    """The measure's value; NaN where it is not a finite number."""
    with np.errstate(all="ignore"):
        value = measure(facts)
    return float(value) if np.isfinite(value) else np.nan
