"""Tensors brought to the host beside the training stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def to_host(tensors: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
    """Copies of tensors as they are now; those on CUDA go over without waiting, and whoever calls waits for them."""
    host, events = {}, []
    for name, tensor in tensors.items():
        if tensor.is_cuda:
            host[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host[name].copy_(tensor, non_blocking=True)
            events.append(torch.cuda.Event())
            events[-1].record()
        else:
            host[name] = tensor.to("cpu", copy=True)

    def ready() -> Mapping[str, Tensor]:
        for event in events:
            event.synchronize()
        return host

    return ready
