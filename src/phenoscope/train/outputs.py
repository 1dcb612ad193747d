"""What a network says about a whole data set: `outputs`, and how often it is right: `accuracy`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..data.batches import Data, batches


def outputs(model: nn.Module, data: Tensor | Data, *, batch_size: int = 128) -> Tensor:
    """What the network gives for every example, in their order.

    The network works in evaluation mode, without gradients, and is left in the mode in which it was.

    Args:
        model: from a batch to scores (N, classes), or to any tensor with one row an example.
        data: inputs, a pair of tensors `(x, y)`, or a loader of such batches.
        batch_size: examples at a time, where the data are tensors.

    Returns:
        The outputs (N, ...), on the model's device.

    Raises:
        InputError: data that `batches` refuses, or a loader that gives no batches.
    """
    if isinstance(data, Tensor):
        data = (data, data.new_zeros(data.shape[:1]))
    with in_mode(model, training=False), torch.no_grad():
        parts = [model(placed(x, y, model)[0]) for x, y in batches(data, batch_size)]
    if not parts:
        raise InputError("the loader gave no batches to compute outputs of")
    return torch.cat(parts)


def accuracy(model: nn.Module, data: Data, *, batch_size: int = 128) -> float:
    """The share of examples whose highest score is that of their label, from 0 to 1.

    The network works in evaluation mode, without gradients, and is left in the mode in which it was.

    Args:
        model: from a batch to scores (N, classes).
        data: a pair of tensors `(x, y)`, or a loader of such batches; `y` are classes.
        batch_size: examples at a time, where the data are tensors.

    Raises:
        InputError: data that `batches` refuses, a loader that gives no batches, or labels that are not one class an
            example.
    """
    correct: Tensor | int = 0
    total = 0
    with in_mode(model, training=False), torch.no_grad():
        for x, y in batches(data, batch_size):
            x, y = placed(x, y, model)
            decisions = model(x).argmax(1)
            if decisions.shape != y.shape:
                raise InputError(f"labels have shape {tuple(y.shape)}, the model's decisions {tuple(decisions.shape)}")
            correct = correct + (decisions == y).sum()
            total += y.numel()
    if total == 0:
        raise InputError("the loader gave no batches to measure accuracy on")
    return int(correct) / total


def placed(x: Any, y: Any, model: nn.Module) -> tuple[Any, Any]:
    """A batch where the model is, inputs in its dtype."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return x, y
    dtype = parameter.dtype if x.is_floating_point() else x.dtype
    return x.to(parameter.device, dtype, non_blocking=True), y.to(parameter.device, non_blocking=True)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or evaluate, and give every module its own mode back: some may have been frozen in the other."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
