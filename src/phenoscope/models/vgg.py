"""VGG-16."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from ..core.errors import InputError
from ..core.random import seeded

# (convolutions, channels) of each block
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

# conv1_1, conv2_2, conv3_3, conv4_3 and conv5_3 of Hu, Wang, Li and Huang (VCIP 2018), table III.
VGG16_OBSERVED = ("block1.conv1", "block2.conv2", "block3.conv3", "block4.conv3", "block5.conv3")


def vgg(
    shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: float = 1.0,
    batch_norm: bool = False,
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015).

    Thirteen 3x3 convolutions in five blocks of 2, 2, 3, 3, 3 with 64, 128, 256, 512, 512 channels, each followed by a
    ReLU; 2x2 max pooling closes a block. Where a side is under 64 pixels, one linear layer follows; from 64 pixels on,
    two of 4096 units, each with ReLU and dropout of one half, and one to the classes. The convolutions are named
    `block1.conv1` to `block5.conv3`, the linear layers `fc6`, `fc7` (of the large head) and `fc8`.

    Weights are drawn from N(0, 2 / fan-in) (He, Zhang, Ren and Sun, ICCV 2015), biases are zero.

    Args:
        shape: (channels, height, width) of an image, in pixels; at least 32 a side.
        num_classes: number of scores.
        width: multiplies the channels, and the 4096 units of the large head.
        batch_norm: whether batch normalization stands between a convolution and its ReLU (`block1.norm1` ...).
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, channels, height, width) to scores (N, num_classes).

    Raises:
        InputError: an image smaller than 32 pixels, or a number that is not positive.
    """
    check_knobs(shape, num_classes, width)
    channels, *size = shape
    if min(size) < 32:
        raise InputError(f"VGG-16 halves an image five times and needs 32 pixels a side, not {size[0]}x{size[1]}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.device("meta"):
        for number, (convolutions, full) in enumerate(_BLOCKS, start=1):
            out = scaled(full, width)
            layers[f"block{number}"] = _block(convolutions, channels, out, batch_norm)
            channels = out
        layers["flatten"] = nn.Flatten()
        units = channels * (size[0] // 32) * (size[1] // 32)
        if min(size) >= 64:
            hidden = scaled(4096, width)
            for number in (6, 7):
                layers[f"fc{number}"] = nn.Linear(units, hidden)
                layers[f"relu{number}"] = nn.ReLU()
                layers[f"dropout{number}"] = nn.Dropout()
                units = hidden
        layers["fc8"] = nn.Linear(units, num_classes)
        network = nn.Sequential(layers)
    he_initialize_(network, generator)
    return network


def _block(convolutions: int, channels: int, out: int, batch_norm: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, convolutions + 1):
        layers[f"conv{number}"] = nn.Conv2d(channels, out, 3, padding=1)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(out)
        layers[f"relu{number}"] = nn.ReLU()
        channels = out
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def check_knobs(shape: Sequence[int], num_classes: int, width: float) -> None:
    """What every network of images is asked for must be positive."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be (channels, height, width) of an image, not {tuple(shape)}")
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, not {num_classes}")
    if not 0 < width < math.inf:
        raise InputError(f"width must be a positive number, not {width}")


def scaled(channels: int, width: float) -> int:
    """`width` times the channels, rounded, and at least one."""
    return max(1, round(channels * width))


def he_initialize_(network: nn.Module, generator: torch.Generator | int | None) -> None:
    """Give a network built on the meta device its memory and its first values.

    Building it there keeps torch's own initialization from costing time and from drawing random numbers.
    """
    generator = seeded(generator)
    network.to_empty(device=generator.device)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
