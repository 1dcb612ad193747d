"""Residual networks with identity mappings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .knobs import Activation, Layers, activation_of, check_shape, check_width, norm_of, scaled

# units of each block, by depth; from 50 layers on they are bottlenecks
_UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_CHANNELS = (64, 128, 256, 512)
_SMALL = (14, 20, 26, 32, 44, 56, 110)  # 6n + 2, for small images

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
    depth: int = 50,
    residual: bool = True,
    activation: Activation = "relu",
    norm: str | None = "batch",
    init: Init = "he",
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """ResNet v2 (He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016).

    Layout and names are those of TF-slim's `resnet_v2_50`. A 7x7 convolution of stride 2, without norm or activation;
    four blocks of 3, 4, 6 and 3 bottleneck units (other depths have other numbers), where the last unit of blocks 1 to
    3 has stride 2; a norm and a ReLU, global average pooling, and a linear layer `logits`. Below 50 layers a unit is
    two 3x3 convolutions. Images of 64 pixels and more are max-pooled (3x3, stride 2) after the first convolution,
    images with a smaller side are not.

    Depths of the form 6n + 2 (14, 20, 26, 32, 44, 56, 110) are the networks for images of 32x32 (He, Zhang, Ren and
    Sun, CVPR 2016, section 4.2), with the same units: a 3x3 convolution of 16 channels without stride or bias, then
    three blocks of n units of 16, 32 and 64 channels, of which the first unit of blocks 2 and 3 has stride 2.

    The norms keep torch's momentum of 0.1. TF-slim lets its running statistics decay by 0.997 a step, which in a short
    run would leave them close to their first values.

    Args:
        shape: (channels, height, width) of an image, in pixels.
        num_classes: number of scores.
        width: multiplies the channels.
        depth: 18, 34, 50, 101 or 152; or one of the smaller networks'.
        residual: without, the same network has no shortcuts: what a unit computes is all that it puts out.
        activation: as in `mlp`.
        norm: "batch", "layer" or `None`.
        init: as in `mlp`: weights N(0, 2 / fan-in) (He, Zhang, Ren and Sun, ICCV 2015), biases zero, unless said.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, channels, height, width) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range.
    """
    check_shape(shape, num_classes, 2)
    check_width(width)
    if depth not in (*_UNITS, *_SMALL):
        raise InputError(f"depth must be one of {', '.join(map(str, (*_UNITS, *_SMALL)))}, not {depth}")
    layers = Layers()
    make = (activation, norm)
    with torch.device("meta"):
        if depth in _SMALL:
            channels = _blocks_for_small_images(layers, shape[0], width, depth, residual, make)
        else:
            channels = _blocks(layers, shape, width, depth, residual, make)
        layers["postnorm"] = _norm(norm, channels)
        layers["relu"] = activation_of(activation)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["logits"] = nn.Linear(channels, num_classes)
        network = nn.Sequential(layers)
    initialize_(network, init, generator)
    return network


Make = tuple[Activation, str | None]


def _blocks(layers: Layers, shape: Sequence[int], width: float, depth: int, residual: bool, make: Make) -> int:
    """Everything up to the last block, whose channels it gives."""
    channels = scaled(64, width)
    layers["conv1"] = nn.Conv2d(shape[0], channels, 7, stride=2, padding=3)
    if min(shape[1:]) >= 64:
        layers["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
    for number, (units, full) in enumerate(zip(_UNITS[depth], _CHANNELS, strict=True), start=1):
        narrow = scaled(full, width)
        out = scaled(4 * full, width) if depth >= 50 else narrow
        block = Layers()
        for unit in range(1, units + 1):
            stride = 2 if unit == units and number < len(_CHANNELS) else 1
            block[f"unit{unit}"] = Unit(
                channels, narrow, out, stride, bottleneck=depth >= 50, residual=residual, make=make
            )
            channels = out
        layers[f"block{number}"] = nn.Sequential(block)
    return channels


def _blocks_for_small_images(layers: Layers, inputs: int, width: float, depth: int, residual: bool, make: Make) -> int:
    channels = scaled(16, width)
    layers["conv1"] = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
    for number, full in enumerate((16, 32, 64), start=1):
        out, block = scaled(full, width), Layers()
        for unit in range(1, (depth - 2) // 6 + 1):
            stride = 2 if number > 1 and unit == 1 else 1
            block[f"unit{unit}"] = Unit(channels, out, out, stride, bottleneck=False, residual=residual, make=make)
            channels = out
        layers[f"block{number}"] = nn.Sequential(block)
    return channels


class Unit(nn.Module):
    """The pre-activation unit: x + F(relu(norm(x))).

    F is 1x1, 3x3 and 1x1 convolutions, or 3x3 and 3x3. Where the number of channels changes, a 1x1 convolution of the
    activated input takes the place of x. Where the unit only has a stride, every stride-th pixel of x does.
    """

    def __init__(
        self,
        channels: int,
        narrow: int,
        out: int,
        stride: int,
        *,
        bottleneck: bool,
        residual: bool,
        make: Make,
    ) -> None:
        super().__init__()
        activation, norm = make
        self.residual, self.bottleneck = residual, bottleneck
        self.projects = residual and channels != out
        self.preact = _norm(norm, channels)
        self.relu = activation_of(activation)
        if self.projects:
            self.shortcut: nn.Module = nn.Conv2d(channels, out, 1, stride=stride)
        elif residual:
            self.shortcut = nn.MaxPool2d(1, stride=stride) if stride > 1 else nn.Identity()
        first = 1 if bottleneck else 3
        self.conv1 = nn.Conv2d(channels, narrow, first, padding=first // 2, bias=norm is None)
        self.norm1 = _norm(norm, narrow)
        self.relu1 = activation_of(activation)
        last = dict(stride=stride, padding=1)
        if bottleneck:
            self.conv2 = nn.Conv2d(narrow, narrow, 3, bias=norm is None, **last)  # type: ignore[arg-type]
            self.norm2 = _norm(norm, narrow)
            self.relu2 = activation_of(activation)
            self.conv3 = nn.Conv2d(narrow, out, 1)
        else:
            self.conv2 = nn.Conv2d(narrow, out, 3, **last)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.preact(x))
        inner = self.conv2(self.relu1(self.norm1(self.conv1(active))))
        if self.bottleneck:
            inner = self.conv3(self.relu2(self.norm2(inner)))
        if not self.residual:
            return inner
        return self.shortcut(active if self.projects else x) + inner


def _norm(norm: str | None, channels: int) -> nn.Module:
    return norm_of(norm, channels, 2) or nn.Identity()
