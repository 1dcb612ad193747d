"""VGG networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import Activation, Layers, activation_of, check_shape, check_width, norm_of, scaled

# convolutions of each block: networks A, B, D and E of the paper
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)

# conv1_1, conv2_2, conv3_3, conv4_3 and conv5_3 of Hu, Wang, Li and Huang (VCIP 2018), table III.
VGG16_OBSERVED = ("block1.conv1", "block2.conv2", "block3.conv3", "block4.conv3", "block5.conv3")


def vgg(
    shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: float = 1.0,
    depth: int = 16,
    blocks: int = 5,
    activation: Activation = "relu",
    norm: str | None = None,
    init: Init = "he",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015).

    Thirteen 3x3 convolutions in five blocks of 2, 2, 3, 3, 3 with 64, 128, 256, 512, 512 channels, each followed by a
    ReLU; 2x2 max pooling closes a block; other depths have other numbers of convolutions. Where a side is under 64
    pixels, one linear layer follows; from 64 pixels on, two of 4096 units, each with ReLU and dropout of one half, and
    one to the classes. The convolutions are named `block1.conv1` to `block5.conv3`, the linear layers `fc6`, `fc7` (of
    the large head) and `fc8`.

    Args:
        shape: (channels, height, width) of an image, in pixels; at least 32 a side with five blocks.
        num_classes: number of scores.
        width: multiplies the channels, and the 4096 units of the large head.
        depth: layers with weights in the network with a large head: 11, 13, 16 or 19.
        blocks: how many of the five blocks there are; each halves the image.
        activation: as in `mlp`.
        norm: "batch" or "layer" normalization between a convolution and its activation (`block1.norm1` ...).
        init: as in `mlp`: weights N(0, 2 / fan-in) (He, Zhang, Ren and Sun, ICCV 2015), biases zero, unless said.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, channels, height, width) to scores (N, num_classes).

    Raises:
        InputError: an image too small for its blocks, or a knob outside its range.
    """
    channels, *size = check_shape(shape, num_classes, 2)
    check_width(width)
    if depth not in _DEPTHS or not 1 <= blocks <= 5:
        raise InputError(f"depth must be 11, 13, 16 or 19 and blocks 1 to 5, not {depth} and {blocks}")
    if min(size) < 2**blocks:
        raise InputError(
            f"{blocks} blocks halve an image {blocks} times and need {2**blocks} pixels a side, "
            f"not {size[0]}x{size[1]}: take fewer blocks"
        )
    layers = Layers()
    with torch.device("meta"):
        for number, convolutions in enumerate(_DEPTHS[depth][:blocks], start=1):
            out = scaled(_CHANNELS[number - 1], width)
            layers[f"block{number}"] = _block(convolutions, channels, out, activation, norm)
            channels = out
        layers["flatten"] = nn.Flatten()
        units = channels * (size[0] // 2**blocks) * (size[1] // 2**blocks)
        if min(size) >= 64:
            hidden = scaled(4096, width)
            for number in (6, 7):
                layers[f"fc{number}"] = nn.Linear(units, hidden)
                layers[f"relu{number}"] = activation_of(activation)
                layers[f"dropout{number}"] = nn.Dropout()
                units = hidden
        layers["fc8"] = nn.Linear(units, num_classes)
        network = nn.Sequential(layers)
    initialize_(network, init, generator)
    return network


def _block(convolutions: int, channels: int, out: int, activation: Activation, norm: str | None) -> nn.Sequential:
    layers = Layers()
    for number in range(1, convolutions + 1):
        layers[f"conv{number}"] = nn.Conv2d(channels, out, 3, padding=1)
        normalization = norm_of(norm, out, 2)
        if normalization is not None:
            layers[f"norm{number}"] = normalization
        layers[f"relu{number}"] = activation_of(activation)
        channels = out
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)
