"""Train a small network on a folder of images with Lightning, and record how its filters evolve.

    pip install 'phenoscope[lightning]'
    python examples/lightning_images.py photos --run runs/photos

The folder has a folder of images for each class. Stop it whenever you like: `--resume` goes on from the last epoch with
the same run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from phenoscope import open_run
from phenoscope.integrations.lightning import Record

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


class Images(Dataset):
    """The images of a folder with a folder for each class, as (3, size, size) tensors in [-1, 1], with their class."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.classes = sorted(each.name for each in folder.iterdir() if each.is_dir())
        self.files = [
            (file, index)
            for index, name in enumerate(self.classes)
            for file in sorted((folder / name).rglob("*"))
            if file.suffix.lower() in ENDINGS
        ]
        if len(self.classes) < 2 or not self.files:
            raise SystemExit(f"{folder} should have a folder of images for each of at least two classes")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.size, self.size)), dtype=np.float32)
        return torch.from_numpy(pixels / 127.5 - 1).movedim(-1, 0), label


class Classifier(pl.LightningModule):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Linear(64, classes)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        outputs = self.head(self.features(x))
        loss = nn.functional.cross_entropy(outputs, y)
        self.log("accuracy", (outputs.argmax(1) == y).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on a folder of images, recorded.")
    parser.add_argument("folder", type=Path, help="with a folder of images for each class")
    parser.add_argument("--run", type=Path, default=Path("runs/images"), help="where to record")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--every", type=int, default=10, help="updates between records")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    given = parser.parse_args()

    pl.seed_everything(0, verbose=False)
    images = Images(given.folder, given.size)
    saved = given.run.parent / f"{given.run.name}-checkpoints"
    trainer = pl.Trainer(
        max_epochs=given.epochs,
        logger=False,
        callbacks=[Record(given.run, every=given.every), ModelCheckpoint(saved, save_last=True)],
    )
    trainer.fit(
        Classifier(len(images.classes)),
        DataLoader(images, batch_size=32, shuffle=True),
        ckpt_path=saved / "last.ckpt" if given.resume else None,
    )

    print("changed share of each layer's weights, first and last window:")
    changed = open_run(given.run).means.changed.dropna("step", how="all")
    for name in changed.layer.values:
        first, last = changed.sel(layer=name).values[[0, -1]]
        print(f"  {name:12} {first:6.1%} {last:6.1%}")
    print(f"pages with figures: phenoscope report {given.run}")


if __name__ == "__main__":
    main()
