"""Convolutional networks of images and of signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import Activation, Layers, activation_of, check_dropout, check_shape, each, norm_of, widths_of


def cnn(
    shape: Sequence[int],
    num_classes: int | None,
    *,
    width: Sequence[int] | int = (16, 32),
    depth: int | None = None,
    kernel_size: Sequence[int] | int = 3,
    stride: Sequence[int] | int = 1,
    pool: Sequence[int] | int = 2,
    pooling: Literal["max", "average"] = "max",
    head: Literal["flatten", "mean"] = "flatten",
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    init: Init = "he",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """A convolutional network of images: `conv1`, `norm1`, `act1`, `pool1`, `conv2` ..., `flatten`, dense, `logits`.

    Args:
        shape: (channels, height, width) of one image.
        num_classes: number of scores; `None` ends with the flattened features, or with the last of `hidden`.
        width: channels of every convolution, or one number for each of `depth` (2 unless said).
        depth: number of convolutions.
        kernel_size, stride: of every convolution, one for all or one each; the padding is `kernel_size // 2`.
        pool: side of the pooling window after every convolution, one for all or one each; 1 is none.
        pooling: "max" or "average".
        head: "flatten" what the convolutions leave, or take its "mean" over all places.
        hidden: units of dense layers before the scores (`linear1`, `act_linear1` ...).
        activation, norm, init: as in `mlp`; normalized layers have no bias.
        dropout: share of activations of the dense layers put to zero in training.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, *shape) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range, or an image that is too small for it.

    Examples:
        >>> net = cnn((1, 8, 8), 10, width=(16, 32), pool=(1, 2), hidden=(64,), generator=0)
        >>> list(net._modules)
        ['conv1', 'act1', 'conv2', 'act2', 'pool2', 'flatten', 'linear1', 'act_linear1', 'logits']
    """
    knobs = dict(pooling=pooling, head=head, hidden=hidden, activation=activation, norm=norm, dropout=dropout)
    widths = widths_of(width, depth, 2)
    network = _build(2, shape, num_classes, widths, kernel_size, stride, pool, **knobs)  # type: ignore[arg-type]
    initialize_(network, init, generator)
    return network


def cnn1d(
    shape: Sequence[int],
    num_classes: int | None,
    *,
    width: Sequence[int] | int = (25, 25, 25),
    depth: int | None = None,
    kernel_size: Sequence[int] | int = 3,
    stride: Sequence[int] | int = 2,
    pool: Sequence[int] | int = 1,
    pooling: Literal["max", "average"] = "max",
    head: Literal["flatten", "mean"] = "flatten",
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    init: Init = "he",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """A convolutional network of signals: `cnn` in one dimension, of inputs (channels, length).

    Args:
        shape: (channels, length) of one signal.
        num_classes: number of scores; `None` ends with the features.
        width: channels of every convolution, or one number for each of `depth` (3 unless said).
        depth: number of convolutions.
        kernel_size, stride, pool, pooling, head, hidden, activation, norm, dropout, init, generator: as in `cnn`.

    Returns:
        A network from (N, *shape) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range, or a signal that is too short for it.

    Examples:
        >>> cnn1d((1, 40), 10, generator=0)(torch.zeros(2, 1, 40)).shape
        torch.Size([2, 10])
    """
    knobs = dict(pooling=pooling, head=head, hidden=hidden, activation=activation, norm=norm, dropout=dropout)
    widths = widths_of(width, depth, 3)
    network = _build(1, shape, num_classes, widths, kernel_size, stride, pool, **knobs)  # type: ignore[arg-type]
    initialize_(network, init, generator)
    return network


_CONV = {1: nn.Conv1d, 2: nn.Conv2d}
_POOL = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("average", 1): nn.AvgPool1d,
    ("average", 2): nn.AvgPool2d,
}


def _build(
    dimensions: int,
    shape: Sequence[int],
    num_classes: int | None,
    widths: tuple[int, ...],
    kernel_size: Sequence[int] | int,
    stride: Sequence[int] | int,
    pool: Sequence[int] | int,
    *,
    pooling: str,
    head: str,
    hidden: Sequence[int],
    activation: Activation,
    norm: str | None,
    dropout: float,
) -> nn.Sequential:
    """The network on the meta device."""
    channels, *sides = check_shape(shape, num_classes, dimensions)
    if (pooling, dimensions) not in _POOL or head not in ("flatten", "mean"):
        raise InputError(f'pooling is "max" or "average" and head "flatten" or "mean", not {pooling!r} and {head!r}')
    if not widths:
        raise InputError("a convolutional network has at least one convolution")
    check_dropout(dropout)
    count = len(widths)
    sizes = zip(
        widths,
        each("kernel_size", kernel_size, count),
        each("stride", stride, count),
        each("pool", pool, count),
        strict=True,
    )
    layers = Layers()
    with torch.device("meta"):
        for number, (out, kernel, step, window) in enumerate(sizes, start=1):
            layers[f"conv{number}"] = _CONV[dimensions](
                channels, out, kernel, stride=step, padding=kernel // 2, bias=norm is None
            )
            normalization = norm_of(norm, out, dimensions)
            if normalization is not None:
                layers[f"norm{number}"] = normalization
            layers[f"act{number}"] = activation_of(activation)
            sides = [(side + 2 * (kernel // 2) - kernel) // step + 1 for side in sides]
            if window > 1:
                layers[f"pool{number}"] = _POOL[pooling, dimensions](window)
                sides = [side // window for side in sides]
            if min(sides) < 1:
                raise InputError(
                    f"nothing is left of {tuple(shape)} after convolution {number}: take less stride or pool"
                )
            channels = out
        if head == "mean":
            layers["mean"] = nn.AdaptiveAvgPool2d(1) if dimensions == 2 else nn.AdaptiveAvgPool1d(1)
            sides = [1] * dimensions
        layers["flatten"] = nn.Flatten()
        units = channels
        for side in sides:
            units *= side
        for number, dense in enumerate(widths_of(tuple(hidden), None, 0), start=1):
            layers[f"linear{number}"] = nn.Linear(units, dense)
            layers[f"act_linear{number}"] = activation_of(activation)
            if dropout:
                layers[f"dropout{number}"] = nn.Dropout(dropout)
            units = dense
        if num_classes is not None:
            layers["logits"] = nn.Linear(units, num_classes)
    return nn.Sequential(layers)
