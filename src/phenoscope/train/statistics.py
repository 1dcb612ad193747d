"""The running statistics of batch normalization, computed anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.batches import Data, batches
from .outputs import in_mode, placed

_BATCH = 256


def batch_norms(model: nn.Module) -> list[Any]:
    """The layers of a network that keep running statistics."""
    found = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in found if norm.running_mean is not None]


@torch.no_grad()
def refresh_statistics_(model: nn.Module, data: Data) -> nn.Module:
    """Make running statistics the plain mean over the batches of some data, in place; all else in evaluation mode.

    The network is left in the mode in which it was. One without such statistics stays as it is.

    Args:
        model: the network.
        data: a pair of tensors or a loader.

    Raises:
        InputError: data that `batches` refuses.
    """
    norms = batch_norms(model)
    if not norms:
        return model
    before = [norm.momentum for norm in norms]
    with in_mode(model, training=False):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean
                norm.train()
            for x, y in batches(data, _BATCH):
                model(placed(x, y, model)[0])
        finally:
            for norm, momentum in zip(norms, before, strict=True):
                norm.momentum = momentum
    return model
