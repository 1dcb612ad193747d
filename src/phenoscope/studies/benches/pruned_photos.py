"""The bench of pruning at the paper's scale: VGG-19 and ResNet-32 on CIFAR-10 and CIFAR-100, as GraSP trains them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from ... import data, models, train
from .pruned_digits import Pair, balanced

PHOTOS = ("CIFAR10", "CIFAR100")
DENSITY, PER_CLASS, BATCH = 0.02, 10, 128


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "VGG-19": functools.partial(models.vgg, depth=19, norm="batch"),
    "ResNet-32": functools.partial(models.resnet, depth=32, width=2.0),  # twice as wide as usual
}


def compared(lab, scorers: Mapping[str, Callable], *, folder: str, epochs: int, seeds: int) -> xr.DataArray:
    """Test accuracy at 98 % sparsity over photos, network, seed and arm."""
    cells = [
        dict(scorers=dict(scorers), folder=folder, photos=photos, network=network, epochs=epochs, seed=seed)
        for photos in PHOTOS
        for network in NETWORKS
        for seed in range(seeds)
    ]
    found = iter(lab.map(one_network, cells))
    by_photos = [
        xr.concat([xr.concat([next(found) for _ in range(seeds)], "seed") for _ in NETWORKS], "network") for _ in PHOTOS
    ]
    names = dict(photos=list(PHOTOS), network=list(NETWORKS), seed=range(seeds), arm=list(scorers))
    return xr.concat(by_photos, "photos").assign_coords(names).accuracy


def one_network(lab, *, scorers, folder, photos, network, epochs, seed) -> xr.Dataset:
    """One network at its initialization, pruned by each of the scorers and trained."""
    part, test, classes = standardized(photos, folder, device=lab.device)
    name = (photos, network, seed)
    start = train.build(
        NETWORKS[network], shape=part[0].shape[1:], num_classes=classes, generator=lab.seed("network", *name)
    ).to(lab.device)
    sample = balanced(part, PER_CLASS * classes, classes, generator=lab.seed("batch", *name))
    accuracy = []
    for scorer in scorers.values():
        masks = scorer(start, functional.cross_entropy, sample, density=DENSITY)
        net = copy.deepcopy(start)
        with torch.random.fork_rng(devices=[part[0].device] if part[0].is_cuda else []):
            torch.manual_seed(lab.seed("moves", *name))
            train.fit(
                net, part, masks=masks, epochs=epochs, batch_size=BATCH, objective=on_moved_images,
                optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4),
                schedule=train.step_decay(epochs * -(-len(part[1]) // BATCH), at=(0.5, 0.75), factor=0.1),
                generator=lab.seed("order", *name),
            )  # fmt: skip
        accuracy.append(train.accuracy(net, test))
    return xr.Dataset({"accuracy": ("arm", accuracy)})


def standardized(photos: str, folder: str, *, device: str) -> tuple[Pair, Pair, int]:
    """Training and test part of a data set of torchvision, by the training part's mean and deviation; its classes."""
    split = data.from_torchvision(photos, folder).to(device)
    mean, deviation = (getattr(split.train[0], of)((0, 2, 3), keepdim=True) for of in ("mean", "std"))
    part, test = (((x - mean) / deviation, y) for x, y in (split.train, split.test))
    return part, test, len(split.classes)


def on_moved_images(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy on images shifted by up to four pixels, half of them mirrored."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    x = data.spatial(torch.where(mirrored, x.flip(3), x), shift=4.0, rotation=0.0, scale=(1.0, 1.0))
    return functional.cross_entropy(model(x), y)
