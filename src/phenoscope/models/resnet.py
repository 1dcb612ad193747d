"""ResNet-50 v2."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .vgg import check_knobs, he_initialize_, scaled

# (units, channels of the 1x1 and 3x3 convolutions, channels of the output) of each block
_BLOCKS = ((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048))

# The layers observed by Hu, Wang, Li and Huang (VCIP 2018), table III.
RESNET50_OBSERVED = (
    "conv1",
    "block1.unit3.conv2",
    "block2.unit4.conv2",
    "block3.unit6.conv2",
    "block4.unit3.conv2",
)


def resnet(
    shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: float = 1.0,
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """ResNet-50 v2 (He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016).

    Layout and names are those of TF-slim's `resnet_v2_50`. A 7x7 convolution of stride 2, without norm or activation;
    four blocks of 3, 4, 6 and 3 bottleneck units, where the last unit of blocks 1 to 3 has stride 2; a norm and a
    ReLU, global average pooling, and a linear layer `logits`. Images of 64 pixels and more are max-pooled (3x3,
    stride 2) after the first convolution, images with a smaller side are not.

    The norms keep torch's momentum of 0.1. TF-slim lets its running statistics decay by 0.997 a step, which in a short
    run would leave them close to their first values.

    Weights are drawn from N(0, 2 / fan-in) (He, Zhang, Ren and Sun, ICCV 2015), biases are zero.

    Args:
        shape: (channels, height, width) of an image, in pixels.
        num_classes: number of scores.
        width: multiplies the channels.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, channels, height, width) to scores (N, num_classes).

    Raises:
        InputError: a number that is not positive.
    """
    check_knobs(shape, num_classes, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.device("meta"):
        channels = scaled(64, width)
        layers["conv1"] = nn.Conv2d(shape[0], channels, 7, stride=2, padding=3)
        if min(shape[1:]) >= 64:
            layers["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
        for number, (units, narrow, wide) in enumerate(_BLOCKS, start=1):
            out = scaled(wide, width)
            block: OrderedDict[str, nn.Module] = OrderedDict()
            for unit in range(1, units + 1):
                stride = 2 if unit == units and number < len(_BLOCKS) else 1
                block[f"unit{unit}"] = Bottleneck(channels, scaled(narrow, width), out, stride)
                channels = out
            layers[f"block{number}"] = nn.Sequential(block)
        layers["postnorm"] = nn.BatchNorm2d(channels)
        layers["relu"] = nn.ReLU()
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["logits"] = nn.Linear(channels, num_classes)
        network = nn.Sequential(layers)
    he_initialize_(network, generator)
    return network


class Bottleneck(nn.Module):
    """The pre-activation unit: x + F(relu(norm(x))), F being 1x1, 3x3 and 1x1 convolutions.

    Where the number of channels changes, a 1x1 convolution of the activated input takes the place of x. Where the unit
    only has a stride, every stride-th pixel of x does.
    """

    def __init__(self, channels: int, narrow: int, out: int, stride: int) -> None:
        super().__init__()
        self.projects = channels != out
        self.preact = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module
        if self.projects:
            self.shortcut = nn.Conv2d(channels, out, 1, stride=stride)
        else:
            self.shortcut = nn.MaxPool2d(1, stride=stride) if stride > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(narrow)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(narrow, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.preact(x))
        shortcut = self.shortcut(active if self.projects else x)
        residual = self.relu1(self.norm1(self.conv1(active)))
        residual = self.relu2(self.norm2(self.conv2(residual)))
        return shortcut + self.conv3(residual)
