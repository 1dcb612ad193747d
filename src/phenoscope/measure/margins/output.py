"""The margin at a network's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...data.batches import Data, batches
from ...train.outputs import in_mode, placed


def margin(model: nn.Module, data: Data, *, chunk: int = 512) -> Tensor:
    """By how much each example's own score exceeds the best of the others.

    gamma_i = f(x_i)[y_i] - max over c != y_i of f(x_i)[c]; for a network with one output, y_i f(x_i), where labels are
    -1 and 1, or 0 for -1. It is negative exactly where the decision is wrong.

    Args:
        model: from a batch to scores (N, C), or (N,) or (N, 1); it works in evaluation mode.
        data: examples and their classes.
        chunk: examples at a time.

    Returns:
        (N,).

    Raises:
        InputError: labels that are no classes of the network, or data that `data.batches` refuses.
    """
    with in_mode(model, training=False), torch.no_grad():
        parts = [
            _margin(model(moved), labels) for moved, labels in (placed(x, y, model) for x, y in batches(data, chunk))
        ]
    if not parts:
        raise InputError("the loader gave no batches to take margins of")
    return torch.cat(parts)


def normalized_margin(model: nn.Module, data: Data, *, chunk: int = 512) -> Tensor:
    """The margin for an input and for layers of norm 1: what no rescaling of a layer changes.

    gamma_i / (||x_i|| prod over layers of ||W_l||_F / sqrt(rows of W_l)); a layer whose rows have norm 1 counts as 1.
    Rescaling leaves it as it is where the network is positively homogeneous in each layer: with ReLU and no biases.

    Args, errors and result as those of `margin`; layers are all parameters with two or more dimensions.
    """
    logs = [w.detach().norm().log() - torch.tensor(len(w)).log() / 2 for w in model.parameters() if w.ndim >= 2]
    if not logs:
        raise InputError("the model has no weights to normalize by")
    sizes = torch.cat([x.flatten(1).norm(dim=1) for x, _ in batches(data, chunk)])
    found = margin(model, data, chunk=chunk)
    return found / (sizes.to(found) * torch.stack(logs).sum().exp())


def _margin(outputs: Tensor, y: Tensor) -> Tensor:
    if outputs.ndim == 1 or outputs.shape[1:] == (1,):
        if not bool(((y == 1) | (y == 0) | (y == -1)).all()) or y.shape != outputs.shape[:1]:
            raise InputError("a network with one output needs labels (N,) of -1 and 1, or of 0 and 1")
        return torch.where(y > 0, 1, -1) * outputs.reshape(-1)
    if outputs.ndim != 2 or y.shape != outputs.shape[:1] or y.is_floating_point():
        raise InputError(f"margins need scores (N, C) and classes (N,), not {tuple(outputs.shape)}, {tuple(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= outputs.shape[1]:
        raise InputError(f"labels go from {int(y.min())} to {int(y.max())}; the network has {outputs.shape[1]} scores")
    own = outputs.gather(1, y[:, None])[:, 0]
    return own - outputs.scatter(1, y[:, None], -torch.inf).amax(1)
