from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from phenoscope.record import Recorder, Run, open_run


def small_net() -> nn.Sequential:
    """Three convolutions and a linear layer, for images (3, 16, 16)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(12, 6, 3, groups=2),
        nn.Flatten(),
        nn.Linear(6 * 25, 4),
    )


def train(
    model: nn.Module, path: Path, shape: tuple[int, ...], steps: int = 12, every: int = 1, **settings: object
) -> Run:
    """Some Adam updates on noise, recorded."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    with Recorder(model, path, optimizer=optimizer, every=every, **settings) as recorder:
        for _ in range(steps):
            loss = model(torch.randn(8, *shape, generator=generator)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss.item())
    return open_run(path)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Run]:
    """A trained network, and the run that recorded it; neither is to be changed."""
    model = small_net()
    return model, train(model, tmp_path_factory.mktemp("runs") / "small", (3, 16, 16))


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Run]:
    """record(model, name, shape, **settings) -> Run."""
    return lambda model, name="run", shape=(3, 16, 16), **settings: train(model, tmp_path / name, shape, **settings)


@pytest.fixture
def pixels() -> Callable[[str], np.ndarray]:
    """From the address of a PNG to its RGBA values."""
    return lambda source: np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


@pytest.fixture
def unpacked() -> Callable[[dict[str, str]], np.ndarray]:
    """From numbers in a menu's arguments to an array."""

    def unpack(spec: dict[str, str]) -> np.ndarray:
        values = np.frombuffer(base64.b64decode(spec["bdata"]), "<f4")
        return values.reshape([int(n) for n in spec["shape"].split(",")]) if "shape" in spec else values

    return unpack
