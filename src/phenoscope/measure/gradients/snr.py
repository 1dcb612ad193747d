"""Whether the gradients of different batches agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.parameters import weight_names
from ...data.batches import Data, batches
from ...train.outputs import placed

if TYPE_CHECKING:
    import xarray


def gradient_snr(
    model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], data: Data, *, batch_size: int = 256
) -> xarray.Dataset:
    """The gradient's signal and noise over the batches of an epoch, layer by layer, the weights standing still.

    With the gradient g_b of every batch with respect to the weights W of a layer,

        signal = |mean_b g_b|_F / |W|_F,    noise = sqrt(sum of the variance of its elements over b) / |W|_F,

    every batch counting by its number of examples, and snr = signal / noise: large while training drifts, small while
    it diffuses (Shwartz-Ziv and Tishby, "Opening the Black Box of Deep Neural Networks via Information", 2017, section
    3.3). There gradients are gathered while the weights move. The noise falls as one over the square root of the batch
    size, so that only values of equal batches compare.

    Args:
        model: from a batch to outputs; in the mode in which it is, and left as it was found.
        loss_fn: from outputs and labels to a mean loss.
        data: `(x, y)`, cut into batches in order; or a loader.
        batch_size: examples in a batch, where the data are tensors; the last one may have fewer.

    Returns:
        Over `layer`, the names of trainable parameters of two or more dimensions: `signal`, `noise` and `snr`, NaN
        where all gradients are zero.

    Raises:
        InputError: fewer than two batches, no such parameters, or data that `data.batches` refuses.
    """
    import numpy
    import xarray

    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    weights = {name: trainable[name] for name in weight_names(model) if name in trainable}
    if not weights:
        raise InputError("the model has no trainable weights of two or more dimensions")
    examples, count = 0, 0
    mean = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    scatter = {name: value.clone() for name, value in mean.items()}
    with unchanged(model), torch.enable_grad():
        for x, y in batches(data, batch_size):
            x, y = placed(x, y, model)
            loss = loss_fn(model(x), y)
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            examples, count = examples + len(x), count + 1
            for name, gradient in zip(weights, found, strict=True):  # West (1979): weighted, without cancellation
                shift = gradient.double() - mean[name]
                mean[name] += shift * (len(x) / examples)
                scatter[name] += len(x) * shift * (gradient.double() - mean[name])
    if count < 2:
        raise InputError(f"batches differ from two on; there are {count}: take a smaller batch_size")
    size = torch.stack([weight.detach().double().norm() for weight in weights.values()])
    signal = torch.stack([value.norm() for value in mean.values()]) / size
    noise = torch.stack([(value.sum() / examples).sqrt() for value in scatter.values()]) / size
    table = {"signal": signal, "noise": noise, "snr": signal / noise}
    return xarray.Dataset(
        {name: ("layer", values.cpu().numpy()) for name, values in table.items()}, {"layer": numpy.array(list(weights))}
    )
