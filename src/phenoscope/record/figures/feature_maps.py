"""What the first layer makes of an image, at the first and at the last snapshot."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError
from ..layers import Layer
from ..run import Run
from .first_layer import first_layer, most_to_least, weight_at
from .pixels import mosaic, png, scaled
from .stack import keep_aspect, stack

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LONGEST = 128  # pixels of a side, of a file and of a map


def feature_maps(run: Run, image: Tensor | Path | str, filters: int = 16) -> Figure:
    """An image, and the first layer's maps of it at the first and at the last snapshot, side by side.

    A map is the convolution's output before any activation. Each filter is scaled by its own range over both moments.
    The filters are spread between the one with the largest time-mean distance (top left) and the one with the
    smallest (bottom right), the same in both panels.

    Args:
        run: a recorded run with snapshots, whose first layer is a 2-D convolution.
        image: a tensor (C, H, W) as the network would get it, or an image file, which is reduced to at most 128
            pixels a side and standardized, each colour by its own mean and standard deviation.
        filters: how many filters at most.

    Raises:
        InputError: no snapshots, another kind of first layer, an unreadable image, or one with other channels.
    """
    from plotly.subplots import make_subplots

    layer = first_layer(run)
    if layer.settings is None or len(layer.shape) != 4 or layer.filters != 0:
        raise InputError(f"feature maps need a 2-D convolution as first layer; {layer.name!r} is {layer.kind}")
    if not layer.parameter.endswith("weight"):
        raise InputError(f"feature maps need a plain weight; {layer.name!r} computes its own from {layer.parameter!r}")
    channels = layer.shape[1] * layer.settings["groups"]
    x = _fitting(_read(image, channels) if isinstance(image, (Path, str)) else image, channels)
    steps = [run.snapshots[0], run.snapshots[-1]]
    rows = most_to_least(run, layer, filters)
    maps = torch.stack([_maps(run, layer, x, step)[rows] for step in steps]).numpy()
    tiles = scaled(maps, axes=(0, 2, 3))[..., None].repeat(3, -1)
    side = ceil(sqrt(len(rows)))
    panels = [mosaic(scaled(_picture(x), axes=(0, 1, 2))[None, None])] + [_grid(each, side) for each in tiles]
    titles = ["the image", *(f"step {step}" for step in steps)]
    figure = make_subplots(rows=1, cols=3, column_titles=titles, horizontal_spacing=0.03)
    for column, panel in enumerate(panels):
        figure.add_image(source=png(panel), zsmooth=False, hoverinfo="skip", row=1, col=column + 1)
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain", constraintoward="top")
    figure.update_layout(margin={"l": 8, "r": 8, "t": 36, "b": 8}, height=400)
    tall = max(panel.shape[0] / panel.shape[1] for panel in panels)
    stack(figure, 1, 3, height=400)
    keep_aspect(figure, tall / 3, tall * 3 * 1.12)
    return figure


def _read(file: Path | str, channels: int) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image: {error}") from error
    picture.thumbnail((_LONGEST, _LONGEST))
    values = torch.from_numpy(np.array(picture, np.float32)).reshape(picture.height, picture.width, -1).permute(2, 0, 1)
    return (values - values.mean((1, 2), keepdim=True)) / values.std((1, 2), keepdim=True).clamp_min(1e-6)


def _fitting(image: Tensor, channels: int) -> Tensor:
    """The image with the channels that the layer takes: a grey one for each of them."""
    image = torch.as_tensor(image).detach().float().cpu()
    if image.ndim != 3 or not image.numel():
        raise InputError(f"image= must be a tensor (C, H, W) or a file, not a tensor of shape {tuple(image.shape)}")
    if image.shape[0] == 1:
        image = image.expand(channels, -1, -1)
    if image.shape[0] != channels:
        raise InputError(f"the image has {image.shape[0]} channels, but the first layer takes {channels}")
    return image


def _maps(run: Run, layer: Layer, image: Tensor, step: int) -> Tensor:
    """(filters, height, width)."""
    tensors = run.snapshot(step)
    weight_at(run, layer, step)  # says what is missing
    assert layer.settings is not None
    bias = tensors.get(layer.bias or "")
    try:
        maps = functional.conv2d(
            image[None], tensors[layer.parameter].float(), None if bias is None else bias.float(), **layer.settings
        )[0]
    except RuntimeError as error:
        size = f"{image.shape[1]} x {image.shape[2]}"
        raise InputError(f"{layer.name!r} cannot take an image of {size} pixels: {error}") from error
    height, width = maps.shape[1:]
    if max(height, width) > _LONGEST:
        shrink = _LONGEST / max(height, width)
        maps = functional.adaptive_avg_pool2d(maps, (max(1, round(height * shrink)), max(1, round(width * shrink))))
    return maps


def _picture(image: Tensor) -> np.ndarray:
    """The image as (height, width, 3)."""
    shown = image if image.shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    return shown.permute(1, 2, 0).numpy()


def _grid(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (filters, height, width, 3) in rows of `side`, the last perhaps shorter."""
    rows = ceil(len(maps) / side)
    empty = np.zeros((rows * side - len(maps), *maps.shape[1:]), maps.dtype)
    return mosaic(np.concatenate([maps, empty]).reshape(rows, side, *maps.shape[1:]), count=len(maps))
