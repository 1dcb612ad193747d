"""Down to which depth networks of a kind can be trained, predicted and measured."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ... import train
from ...core.errors import InputError
from ...core.random import child_seeds
from ...models.ntk import NTKLinear
from ...theory.gaussian.activations import Activation, activation
from ...theory.propagation.mlp import MeanField, mean_field

if TYPE_CHECKING:
    import xarray

_LINEAR = (nn.Linear, NTKLinear)
RMSPROP = functools.partial(torch.optim.RMSprop, lr=1e-4)


def trainable_depth(
    make_model: Callable[..., nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    depths: Sequence[int] = (8, 15, 25, 40, 60),
    threshold: float = 0.5,
    steps: int = 300,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = RMSPROP,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Train one network of every depth and see where accuracy gives out; beside it, what mean-field theory predicts.

    The theory (Schoenholz, Gilmer, Ganguli et al., "Deep Information Propagation", ICLR 2017) says that depth is
    limited by xi_c, the number of layers in which two inputs' correlation settles at the start: accuracy was seen to
    give out near 6 xi_c. That factor depends on the length of training and is not fitted here.

    Args:
        make_model: network factory that takes `depth=`; further knobs by `functools.partial`.
        data: `(x, y)`, on which networks are trained and their accuracy is measured.
        depths: growing.
        threshold: of the accuracy.
        steps: updates of each training.
        optimizer: makes an optimizer of parameters.
        batch_size: examples in a batch.
        device: where to train.
        generator: seeds networks and batches; those of a depth do not depend on which others there are.

    Returns:
        `accuracy` over `depth`; `crossing`, the depth where it crosses the threshold (`crossing_depth`); and, of the
        deepest network at its start, `sigma_w2`, `sigma_b2`, `xi_c`, `xi_grad`, and `predicted` = 6 xi_c, NaN where a
        network is not linear layers with one activation.

    Raises:
        InputError: depths that do not grow, or what `train.build` and `train.fit` refuse.
    """
    import xarray

    if not len(depths) or list(depths) != sorted(set(depths)):
        raise InputError(f"depths must be growing numbers, not {tuple(depths)}")
    x, y = data
    (root,) = child_seeds(generator, 1)
    scores = []
    measured: dict[str, Any] = dict.fromkeys(("sigma_w2", "sigma_b2", "xi_c", "xi_grad", "predicted"), math.nan)
    for depth in depths:
        seed = (root + depth) % 2**62
        model = train.build(make_model, shape=x.shape[1:], num_classes=int(y.max()) + 1, generator=seed, depth=depth)
        model.to(device)
        theory = realized_mean_field(model)
        if theory is not None:
            sigma_w2, sigma_b2, field = theory
            measured = {
                "sigma_w2": sigma_w2, "sigma_b2": sigma_b2, "xi_c": field.xi_c, "xi_grad": field.xi_grad,
                "predicted": 6 * field.xi_c,
            }  # fmt: skip
        train.fit(model, data, steps=steps, optimizer=optimizer, batch_size=batch_size, generator=seed)
        scores.append(train.accuracy(model, data))
    crossing = crossing_depth(depths, scores, threshold=threshold)
    variables = {"accuracy": ("depth", np.array(scores)), "crossing": crossing, **measured}
    return xarray.Dataset(variables, {"depth": list(depths)})


def crossing_depth(depths: ArrayLike, accuracy: ArrayLike, *, threshold: float = 0.5) -> float:
    """Where accuracy, linear between the depths, first falls through the threshold.

    Censored at both ends: the first depth if it is below there already, the last one if it never falls through.

    Args:
        depths: growing.
        accuracy: of each.
        threshold: to fall through.

    Raises:
        InputError: lists of different lengths, or empty ones.

    Examples:
        >>> crossing_depth([10, 20, 30], [0.9, 0.7, 0.3])
        25.0
    """
    at, values = np.asarray(depths, dtype=float), np.asarray(accuracy, dtype=float)
    if at.ndim != 1 or at.shape != values.shape or not at.size:
        raise InputError(f"one accuracy for each depth is needed, not shapes {at.shape} and {values.shape}")
    below = np.flatnonzero(~(values >= threshold))
    if not below.size:
        return float(at[-1])
    i = int(below[0])
    if i == 0:
        return float(at[0])
    share = (values[i - 1] - threshold) / (values[i - 1] - values[i])
    return float(at[i - 1] + share * (at[i] - at[i - 1]))


def realized_mean_field(model: nn.Module) -> tuple[float, float, MeanField] | None:
    """The variances that a network's linear layers have as they stand, and their mean-field theory.

    Returns:
        sigma_w2, the mean over layers of the weights' mean square times fan-in; sigma_b2, that of the biases; the
        theory at these; or `None` where hidden layers are not linear layers with one activation.
    """
    act = hidden_activation(model)
    if act is None:
        return None
    layers = [module for module in model.modules() if isinstance(module, _LINEAR)]
    scales = [(m.sigma_w2, m.sigma_b2) if isinstance(m, NTKLinear) else (float(m.in_features), 1.0) for m in layers]
    squares = [float(m.weight.detach().double().square().mean()) for m in layers]
    biases = [0.0 if m.bias is None else float(m.bias.detach().double().square().mean()) for m in layers]
    sigma_w2 = float(np.mean([scale[0] * square for scale, square in zip(scales, squares, strict=True)]))
    sigma_b2 = float(np.mean([scale[1] * square for scale, square in zip(scales, biases, strict=True)]))
    keep = [1 - module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    if not sigma_w2 > 0 or any(not share > 0 for share in keep):
        return None
    return sigma_w2, sigma_b2, mean_field(act, sigma_w2, sigma_b2, dropout_keep=min(keep, default=1.0))


def hidden_activation(model: nn.Module) -> Activation | None:
    """The one activation between a network's linear layers; `None` where there is more, or other layers."""
    modules = list(model.modules())
    others = [module for module in modules if not isinstance(module, (*_LINEAR, nn.Sequential, nn.Flatten, nn.Dropout))]
    count = sum(isinstance(module, _LINEAR) for module in modules)
    if count < 2 or len({repr(module) for module in others}) != 1 or next(others[0].children(), None) is not None:
        return None
    try:
        act = activation(others[0])
        act.derivative(torch.zeros(1, dtype=torch.float64))
    except (InputError, RuntimeError, TypeError):
        return None
    return act
