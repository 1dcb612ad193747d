"""Work on the user's network and leave it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards every module's mode, every gradient and every buffer is what it was before, also after an error.

    Parameters are not copied: who changes one puts it back.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for buffer, before in buffers:
            buffer.data.copy_(before)  # .data: a backward pass that waits for it may go on
