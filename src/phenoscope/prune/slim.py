"""A smaller network without the filters that training left behind, and what that gains and costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.guard import unchanged
from ..record.layers import unwrap
from .coupling import Example, call
from .removable import planned

_WARM_UP, _FEWEST, _MOST, _SECONDS = 3, 5, 50, 2.0


def slim(model: nn.Module, filters: Mapping[str, Any], example: Example) -> nn.Module:
    """A new network without these filters, as far as they can be removed; `removable` tells which stay, and why.

    Their output channels are taken out, together with all that belongs to them: channels of norms that follow, and
    input channels of the layers that read them (by torch-pruning's dependency graph). The new network computes what
    the full one computes when these channels are zero where they are read, which is checked on the example. That
    equals zeroing weight and bias of the filters, as `record.ablate` does, where no norm or activation between turns
    zero into something else.

    Args:
        model: the network; left as it was found.
        filters: layer name -> indices of filters, as `record.redundant` gives.
        example: what the network is called with: a tensor, a tuple of arguments, or a dictionary of named ones.

    Returns:
        A smaller copy, in the mode and on the device of the model; its outputs have the same shape.

    Raises:
        InputError: a layer that the network lacks, an index past its last filter, a network that does not run on the
            example, cannot be copied, or that torch-pruning cannot follow.
    """
    return planned(unwrap(model), filters, example)[1]


def slim_report(
    before: nn.Module, after: nn.Module, example: Example, evaluate: Callable[[nn.Module], float]
) -> xr.Dataset:
    """Size, work, time and accuracy of a network before and after slimming.

    Args:
        before, after: the two networks; left as they were found.
        example: what they are called with to count and to time: a tensor, a tuple of arguments, or a dictionary.
        evaluate: from a network, in evaluation mode, to its accuracy on held-out data, as a share of 1.

    Returns:
        Dimension `state` ("before", "after"):

        - `parameters`: numbers in all parameters, shared ones once.
        - `flops`: floating-point operations of one call on the example (two for each multiply-add; convolutions,
          matrix products and attention are counted).
        - `forward_ms`: median time of one call, in milliseconds, without gradients; the calls of the two alternate.
        - `accuracy`: as a share of 1.
    """
    models = [unwrap(before), unwrap(after)]
    with unchanged(models[0]), unchanged(models[1]), torch.no_grad():
        for model in models:
            model.eval()
        flops = [_flops(model, example) for model in models]
        milliseconds = _times(models, example)
        accuracy = [float(evaluate(model)) for model in models]
    return xr.Dataset(
        {
            "parameters": ("state", [sum(p.numel() for p in model.parameters()) for model in models]),
            "flops": ("state", flops),
            "forward_ms": ("state", milliseconds, {"units": "ms"}),
            "accuracy": ("state", accuracy),
        },
        coords={"state": ["before", "after"]},
    )


def _flops(model: nn.Module, example: Example) -> int:
    with FlopCounterMode(display=False) as counter:
        call(model, example)
    return counter.get_total_flops()


def _times(models: list[nn.Module], example: Example) -> list[float]:
    """Median milliseconds of each network's call: at least 5 calls, then up to 50 within 2 seconds."""
    on_cuda = any(parameter.is_cuda for parameter in models[0].parameters())

    def timed(model: nn.Module) -> float:
        if on_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call(model, example)
        if on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(_WARM_UP):
        for model in models:
            timed(model)
    rounds: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    while len(rounds) < _FEWEST or (len(rounds) < _MOST and time.perf_counter() < end):
        rounds.append([timed(model) for model in models])
    return (np.median(rounds, axis=0) * 1e3).tolist()
