"""Recurrent networks of sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import check_dropout, check_shape


def gru(
    shape: Sequence[int],
    num_classes: int,
    *,
    width: int = 32,
    depth: int = 1,
    norm: str | None = None,
    dropout: float = 0.0,
    init: Init = "torch",
    generator: torch.Generator | int | None = None,
) -> nn.Module:
    """A gated recurrent network (Cho et al., EMNLP 2014) that reads a signal and scores it by its last state.

    Modules: `gru`, `norm` and `logits`.

    Args:
        shape: (channels, length) of one signal; the channels of a moment are read together.
        num_classes: number of scores.
        width: units of every layer.
        depth: layers.
        norm: "layer" normalizes the last state.
        dropout: share of what goes from one layer to the next put to zero in training.
        init: of `logits`, as in `mlp`; recurrent weights are drawn as torch does, uniform in +-1 / sqrt(width). A
            function may change all.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, channels, length) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range.

    Examples:
        >>> gru((1, 40), 10, width=16, generator=0)(torch.zeros(2, 1, 40)).shape
        torch.Size([2, 10])
    """
    channels, _ = check_shape(shape, num_classes, 1)
    check_dropout(dropout)
    if width < 1 or depth < 1:
        raise InputError(f"width and depth must be at least 1, not {width} and {depth}")
    if norm not in (None, "layer"):
        raise InputError(f'norm of a recurrent network must be "layer" or None, not {norm!r}')
    with torch.device("meta"):
        network = LastState(channels, num_classes, width, depth, norm == "layer", dropout if depth > 1 else 0.0)
    initialize_(network, init, generator)
    return network


class LastState(nn.Module):
    """A GRU and a linear layer on its last state."""

    def __init__(self, channels: int, classes: int, width: int, depth: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, width, depth, batch_first=True, dropout=dropout)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.logits = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(x.transpose(1, 2))
        return self.logits(self.norm(states[:, -1]))
