"""The pooling network of the image bench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import Activation, Layers, activation_of, check_shape, norm_of, widths_of


def gapnet(
    shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 5,
    *,
    width: Sequence[int] = (16, 32, 64),
    pool: bool = True,
    head: Literal["mean", "max"] = "mean",
    activation: Activation = "relu",
    norm: str | None = "batch",
    init: Init = "he",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """A small convolutional network that ends in global pooling, so that its last maps show where a class is.

    A 5x5 convolution of stride 2, then 3x3 convolutions, the second of which is followed by 2x2 max pooling, each with
    normalization and activation; the mean over all places; one linear layer (the design of Lin, Chen and Yan, "Network
    in Network", ICLR 2014, and Zhou, Khosla, Lapedriza, Oliva and Torralba, CVPR 2016). On 32x32 images the last
    maps are 8x8. Modules: `conv1`, `norm1`, `act1`, `conv2` ..., `pool`, `conv3` ..., `mean` or `max`, `flatten`,
    `logits`. `models.fold_norm` takes the trained normalization out.

    Args:
        shape: (channels, height, width) of one image.
        num_classes: number of scores.
        width: channels of every convolution, two or more.
        pool: whether to pool after the second convolution.
        head: global "mean" or "max" pooling.
        activation, norm, init: as in `mlp`; normalized convolutions have no bias.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, *shape) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range, or an image under 4 pixels a side.
    """
    channels, *sides = check_shape(shape, num_classes, 2)
    widths = widths_of(tuple(width), None, 3)
    if len(widths) < 2 or head not in ("mean", "max"):
        raise InputError(f'width needs two numbers or more and head is "mean" or "max", not {width} and {head!r}')
    if min(sides) < 4:
        raise InputError(f"the image must have 4 pixels a side or more, not {sides[0]}x{sides[1]}")
    layers = Layers()
    with torch.device("meta"):
        for number, out in enumerate(widths, start=1):
            kernel, stride = (5, 2) if number == 1 else (3, 1)
            layers[f"conv{number}"] = nn.Conv2d(
                channels, out, kernel, stride=stride, padding=kernel // 2, bias=norm is None
            )
            normalization = norm_of(norm, out, 2)
            if normalization is not None:
                layers[f"norm{number}"] = normalization
            layers[f"act{number}"] = activation_of(activation)
            if number == 2 and pool:
                layers["pool"] = nn.MaxPool2d(2)
            channels = out
        layers[head] = nn.AdaptiveAvgPool2d(1) if head == "mean" else nn.AdaptiveMaxPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["logits"] = nn.Linear(channels, num_classes)
        network = nn.Sequential(layers)
    initialize_(network, init, generator)
    return network
