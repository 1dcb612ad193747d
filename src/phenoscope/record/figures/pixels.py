"""Small pictures side by side in one PNG."""

from __future__ import annotations

import base64
import io

import numpy as np


def scaled(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Values as uint8, each slice along the other axes by its own range; without a range, mid-grey; NaN is black."""
    finite = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(invalid="ignore"):
        low = np.fmin.reduce(finite, axis=axes, keepdims=True)
        span = np.fmax.reduce(finite, axis=axes, keepdims=True) - low
        share = np.where(span > 0, (finite - low) / np.where(span > 0, span, 1), 0.5)
    return np.nan_to_num(np.where(np.isnan(finite), 0, share) * 255).round().astype(np.uint8)


def mosaic(tiles: np.ndarray, smallest: int = 12, count: int | None = None) -> np.ndarray:
    """Tiles (rows, columns, height, width, 3) as one RGBA image with transparent lines of two pixels between them.

    Args:
        smallest: tiles with fewer pixels a side are enlarged, each pixel to a square, so that the lines stay thin.
        count: how many tiles there are, row by row; the places after them are transparent.
    """
    rows, columns, height, width, _ = tiles.shape
    factor = -(-smallest // max(height, width))
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    canvas = np.zeros((rows, columns, height * factor + 2, width * factor + 2, 4), np.uint8)
    canvas[:, :, :-2, :-2, :3] = tiles
    filled = np.arange(rows * columns).reshape(rows, columns) < (rows * columns if count is None else count)
    canvas[:, :, :-2, :-2, 3] = 255 * filled[:, :, None, None]
    return canvas.transpose(0, 2, 1, 3, 4).reshape(rows * canvas.shape[2], columns * canvas.shape[3], 4)[:-2, :-2]


def png(image: np.ndarray) -> str:
    """An RGBA image (height, width, 4) of uint8 as the address of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
