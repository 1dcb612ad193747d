"""What drawing images costs beside a plain program that draws them one at a time, measured in one run.

    python benchmarks/shapes.py [--images 10000] [--rounds 5] [--json]

One thread. `data.render` draws all images at once from their factors. The plain program takes the same factors and
draws each image with Pillow, at four times its size and shrunk, which is how anti-aliased shapes are commonly made;
it is timed on every tenth image. Every round draws with both, in a new order. Medians. `data.shapes` (draw factors,
render, standardize, split) is timed as well. The first check is that both draw the same pictures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import numpy as np
import torch
from PIL import Image, ImageDraw

from phenoscope import data

FINER = 4
SIZE = 32


def outline_points(kind: str, radius: float, rotation: float) -> list[tuple[float, float]]:
    """The corners of a shape, or points of a circle, around the origin."""
    if kind == "circle":
        radii, angles = np.full(48, 0.9), np.linspace(0, 2 * np.pi, 48, endpoint=False)
    elif kind == "square":
        radii, angles = np.full(4, 0.7 * 2**0.5), np.pi / 4 + np.pi / 2 * np.arange(4)
    elif kind == "triangle":
        radii, angles = np.ones(3), 2 * np.pi / 3 * np.arange(3)
    elif kind == "star":
        radii, angles = np.where(np.arange(10) % 2, 0.45, 1.0), np.pi / 5 * np.arange(10)
    else:
        corners = [(0.3, 0.94), (0.3, 0.3), (0.94, 0.3)]
        places = np.array([(x * np.cos(t) - y * np.sin(t), x * np.sin(t) + y * np.cos(t))
                           for t in np.pi / 2 * np.arange(4) for x, y in reversed(corners)])  # fmt: skip
        return [tuple(radius * place) for place in places]
    return [
        (radius * r * np.sin(a + rotation), -radius * r * np.cos(a + rotation))
        for r, a in zip(radii, angles, strict=True)
    ]


def one_by_one(factors: data.Factors) -> np.ndarray:
    """The same images, each by Pillow and numpy."""
    names = {
        name: getattr(factors, name).numpy() for name in ("shape", "x", "y", "radius", "rotation", "color", "texture")
    }
    patterns = {name: getattr(factors, name).numpy() for name in ("period", "angle", "phase", "contrast")}
    ground, waves = factors.background_color.numpy(), factors.waves.numpy()
    spread = factors.background_contrast.numpy()
    place = (np.arange(SIZE) + 0.5) / SIZE
    line = np.cos(np.pi * np.arange(4)[:, None] * place)
    basis = (line[:, None, :, None] * line[None, :, None, :]).reshape(16, SIZE * SIZE)[1:]
    basis /= np.sqrt((basis**2).mean(1).sum())
    down, along = np.mgrid[:SIZE, :SIZE] + 0.5
    images = np.empty((len(factors), 3, SIZE, SIZE), np.float32)
    for n in range(len(factors)):
        image = ground[n][:, None, None] + spread[n] * (waves[n] @ basis).reshape(3, SIZE, SIZE)
        canvas = Image.new("L", (SIZE * FINER, SIZE * FINER), 0)
        kind = data.OUTLINES[names["shape"][n, 0]]
        points = outline_points(kind, names["radius"][n, 0], names["rotation"][n, 0])
        x, y = names["x"][n, 0], names["y"][n, 0]
        ImageDraw.Draw(canvas).polygon([(FINER * (x + a), FINER * (y + b)) for a, b in points], fill=255)
        cover = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
        color = names["color"][n, 0][:, None, None]
        if data.PATTERNS[names["texture"][n, 0]] == "stripes":
            period, angle, phase, contrast = (patterns[name][n, 0] for name in patterns)
            wave = np.sin(2 * np.pi / period * (along * np.cos(angle) + down * np.sin(angle)) + phase)
            color = np.clip(color + contrast * np.clip(wave * max(1, period / 3), -1, 1), 0, 1)
        image = np.clip(image, 0, 1)
        images[n] = image + (color - image) * cover
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    knobs = dict(textures=("flat", "stripes"), scale="unit")
    factors = data.shapes(train=arguments.images - 1, test=1, **knobs).factors["train"]
    tenth = factors[::10]
    ours, _ = data.render(tenth)
    difference = np.abs(ours.numpy() - one_by_one(tenth))
    assert difference.mean() < 0.004, difference.mean()

    def whole() -> None:
        data.shapes(train=arguments.images - 500, test=500, textures=("flat", "stripes"), generator=1)

    actions = {
        "render": (lambda: data.render(factors), len(factors)),
        "shapes": (whole, arguments.images),
        "one by one": (lambda: one_by_one(tenth), len(tenth)),
    }
    wall: dict[str, list[float]] = {name: [] for name in actions}
    busy: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(arguments.rounds):
        for name in random.sample(list(actions), len(actions)):
            action, count = actions[name]
            start, start_busy = time.perf_counter(), time.process_time()
            action()
            wall[name].append((time.perf_counter() - start) / count * 10_000)
            busy[name].append((time.process_time() - start_busy) / count * 10_000)
    figures = {
        name: {"seconds": statistics.median(wall[name]), "processor_seconds": statistics.median(busy[name])}
        for name in actions
    }
    figures["mean difference of a pixel"] = float(difference.mean())
    if arguments.json:
        print(json.dumps(figures))
        return
    print("seconds for 10,000 images of 32x32     by the wall    of processor time")
    for name in actions:
        print(f"{name:38} {figures[name]['seconds']:11.2f} {figures[name]['processor_seconds']:20.2f}")
    ratio = statistics.median(a / b for a, b in zip(wall["one by one"], wall["render"], strict=True))
    print(f"render is {ratio:.0f} times as fast; a pixel differs by {difference.mean():.4f} on average")


if __name__ == "__main__":
    main()
