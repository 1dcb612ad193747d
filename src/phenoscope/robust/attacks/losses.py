"""What an attack raises: one value for each example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError

PerExample = Callable[[Tensor, Tensor], Tensor]


def per_example(loss: str | Callable[[Tensor, Tensor], Tensor]) -> PerExample:
    """A loss by name, or a mean loss mapped over the examples, as a function of scores (N, C) and labels (N,) to (N,).

    Args:
        loss: "ce", the cross-entropy; "margin", the largest other score minus the label's own, positive where the
            example is misclassified; or `loss_fn(outputs, y)` that returns a mean.
    """
    if callable(loss):
        return lambda outputs, y: torch.func.vmap(lambda o, t: loss(o[None], t[None]))(outputs, y)
    if loss == "ce":
        return lambda outputs, y: functional.cross_entropy(outputs, y, reduction="none")
    if loss == "margin":
        return margin
    raise InputError(f"there is no attack loss {loss!r}; give 'ce', 'margin' or a function of outputs and labels")


def margin(outputs: Tensor, y: Tensor) -> Tensor:
    """The largest other score minus the label's own, for each example: positive where it is misclassified."""
    own = torch.arange(outputs.shape[1], device=outputs.device) == y[:, None]
    others = outputs.masked_fill(own, -torch.inf).amax(1)
    return others - outputs.gather(1, y[:, None])[:, 0]
