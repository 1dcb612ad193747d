"""On exact computation with an infinitely wide neural net: the convolutional kernel (Arora, Du, Hu et al., 2019)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from ... import data, kernels, models, stats
from ...core.errors import InputError
from ...core.random import seeded
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

HEADS = ("gap", "flatten")
LARGEST = 256
PAPER = {"large_depth": 11, "large_train": 50_000, "large_pixels": 32 * 32, "large_classes": 10}


def cifar10(*, generator=None) -> data.Split:
    """CIFAR-10, read by torchvision from the folder `data`."""
    return data.from_torchvision("CIFAR10", "data", generator=generator)


study = Study(
    "cntk",
    smoke=dict(images=60, train=20, crop=6, splits=2, channels=(8, 16), nets=2, finite_images=3),
    gpu=dict(images=1500, train=500, splits=10, channels=(32, 64, 128, 256, 512, 1024), nets=20, large_images=50_000),
)


@study.experiment
def experiment(
    lab,
    *,
    dataset=data.digits,
    images: int = 450,
    train: int = 150,
    splits: int = 5,
    depth: int = 3,
    crop: int = 8,
    channels: tuple[int, ...] = (32, 64, 128, 256),
    nets: int = 8,
    finite_images: int = 10,
    finite_crop: int = 6,
    large_dataset=cifar10,
    large_images: int = 0,
    large_depth: int = 11,
    large_block: int = 2500,
) -> xr.Dataset:
    """Classifies rolled and unrolled images by three exact kernels, and compares finite networks with two of them.

    Args:
        dataset: factory of the images.
        images: how many, equally many a class, that the splits are drawn from.
        train: how many of them train; the others test.
        splits: random divisions into training and test images.
        depth: layers of all kernels and of the finite networks.
        crop: pixels a side of what is taken from the images' middle.
        channels: of the finite networks.
        nets: finite networks of each number of channels.
        finite_images: images whose tangent kernel is taken.
        finite_crop: pixels a side of these.
        large_dataset: the images at scale; CIFAR-10 needs torchvision.
        large_images: how many of its training part train, 0 for none; the whole test part tests.
        large_depth: layers of the pooled kernel there.
        large_block: images a side of the blocks in which its matrix is computed and kept.
    """
    grams = [
        dict(dataset=dataset, rolled=rolled, images=images, train=train, splits=splits, depth=depth, crop=crop)
        for rolled in (True, False)
    ]
    found = xr.concat(lab.map(one_pool, grams), xr.Variable("rolled", [True, False]))
    finite = [
        dict(dataset=dataset, channels=count, depth=depth, nets=nets, images=finite_images, crop=finite_crop)
        for count in sorted(channels)[::-1]
    ]
    found = found.merge(xr.concat(lab.map(finite_networks, finite), "channels").sortby("channels"))
    if large_images:
        found = found.merge(
            at_scale(lab, dataset=large_dataset, images=large_images, depth=large_depth, block=large_block)
        )
    return found


def one_pool(lab, *, dataset, rolled, images, train, splits, depth, crop) -> xr.Dataset:
    """The accuracy of each kernel on each split; the Gram matrices are computed once."""
    x, y = pool(lab, dataset, images=images, crop=crop)
    if rolled:
        generator = seeded(lab.seed("roll"))
        by = torch.randint(crop, (len(x), 2), generator=generator).tolist()
        x = torch.stack([image.roll(tuple(offset), (1, 2)) for image, offset in zip(x, by, strict=True)])
    x = x.to(lab.device).double()
    grams = {head: kernels.cntk(x, depth=depth, pooling=head, padding="circular").cpu() for head in HEADS}
    grams["dense"] = kernels.mlp_kernels(x, depth=depth, sigma_w2=2.0).ntk.cpu()
    accuracies = [
        [accuracy(gram, y, *halves(lab, y, train=train, split=split)) for split in range(splits)]
        for gram in grams.values()
    ]
    return xr.Dataset({"accuracy": (("kernel", "split"), accuracies)}, {"kernel": list(grams), "split": range(splits)})


def pool(lab, dataset, *, images: int, crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equally many images of every class, from all parts of the data, and their labels."""
    split = data.load(dataset, generator=lab.seed("split"))
    parts = [part for part in (split.train, split.validation, split.test) if part is not None]
    x, y = (torch.cat([part[i] for part in parts]) for i in range(2))
    top, left = ((side - crop) // 2 for side in x.shape[2:])
    classes = len(y.unique())
    rows = [(y == label).nonzero().flatten()[: images // classes] for label in range(classes)]
    if images % classes or min(top, left) < 0 or any(len(each) < images // classes for each in rows):
        raise InputError(f"{images} images of {crop} pixels a side, equally many of {classes} classes, are not there")
    chosen = torch.cat(rows)
    return x[chosen, :, top : top + crop, left : left + crop], y[chosen]


def halves(lab, y: torch.Tensor, *, train: int, split: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on, equally many a class, and the rest."""
    generator, classes = seeded(lab.seed("halves", split)), len(y.unique())
    if train % classes:
        raise InputError(f"train must be a multiple of the {classes} classes, not {train}")
    order = torch.randperm(len(y), generator=generator)
    of_class = [order[y[order] == label] for label in range(classes)]
    count = train // classes
    return torch.cat([rows[:count] for rows in of_class]), torch.cat([rows[count:] for rows in of_class])


def accuracy(gram: torch.Tensor, y: torch.Tensor, training: torch.Tensor, test: torch.Tensor) -> float:
    """The share of test images that kernel regression on centered one-hot labels puts into their class."""
    classes = int(y.max()) + 1
    targets = functional.one_hot(y[training], classes).double() - 1 / classes
    found = kernels.kernel_regression(gram[training][:, training], targets, gram[test][:, training])
    return float((found.prediction.argmax(1) == y[test]).double().mean())


def finite_networks(lab, *, dataset, channels, depth, nets, images, crop) -> xr.Dataset:
    """How far the tangent kernels of networks of some channels are from the exact one, by head."""
    split = data.load(dataset, generator=lab.seed("split"))
    x = split.train[0][:images].to(lab.device)
    top, left = ((side - crop) // 2 for side in x.shape[2:])
    x = x[:, :, top : top + crop, left : left + crop].double()
    errors = []
    for head in HEADS:
        exact = kernels.cntk(x, depth=depth, pooling=head, padding="circular")
        seeds = [lab.seed("network", head, channels, net) for net in range(nets)]
        networks = (finite_network(x.shape[1:], channels, depth, head, seed).to(x) for seed in seeds)
        found = (kernels.empirical_ntk(network, x, outputs="trace") for network in networks)
        errors.append([float((each - exact).norm() / exact.norm()) for each in found])
    return xr.Dataset(
        {"finite_error": (("head", "net"), errors)}, {"head": list(HEADS), "net": range(nets), "channels": channels}
    )


def finite_network(shape, channels: int, depth: int, head: str, seed: int) -> nn.Sequential:
    """The network whose limit, channels growing, `kernels.cntk` computes: its scale at both ends is the kernel's."""
    generator, (inputs, height, width), q = torch.Generator().manual_seed(seed), shape, 3
    network, convolution = nn.Sequential(), functools.partial(models.NTKConv2d, padding_mode="circular")
    for layer in range(depth):
        # the images are taken as they are, without the factor 2 / (C q^2)
        variance = 2.0 if layer else float(inputs * q**2)
        network += nn.Sequential(convolution(channels if layer else inputs, channels, q, sigma_w2=variance), nn.ReLU())
    if head == "gap":
        network += nn.Sequential(nn.AdaptiveAvgPool2d(1))
    pixels = 1 if head == "gap" else height * width
    network += nn.Sequential(nn.Flatten(), models.NTKLinear(channels * pixels, 1, sigma_w2=2.0 * pixels / q**2))
    for module in network:
        if isinstance(module, (models.NTKConv2d, models.NTKLinear)):
            module.reset_parameters(generator)
    return network


def at_scale(lab, *, dataset, images, depth, block) -> xr.Dataset:
    """Test accuracy of the pooled kernel on a whole data set; its blocks are cells, so that a run can go on."""
    split = data.load(dataset, generator=lab.seed("large"))
    (x, y), (test, truth) = split.train, split.test
    images = min(images, len(x))
    starts = range(0, images, block)
    cells = [
        dict(dataset=dataset, rows=(part, first, min(first + block, end)), columns=(start, min(start + block, images)))
        for part, end in (("train", images), ("test", len(test)))
        for first in range(0, end, block) for start in starts if part == "test" or start >= first
    ]  # fmt: skip
    grams = {"train": np.empty((images, images)), "test": np.empty((len(test), images))}
    found = lab.map(one_block, [dict(depth=depth, **cell) for cell in cells])
    for cell, each in zip(cells, found, strict=True):
        (part, *rows), columns = cell["rows"], cell["columns"]
        grams[part][slice(*rows), slice(*columns)] = each.gram.values
        if part == "train":
            grams[part][slice(*columns), slice(*rows)] = each.gram.values.T
    classes = int(y.max()) + 1
    targets = functional.one_hot(y[:images], classes).double() - 1 / classes
    regression = kernels.kernel_regression(torch.from_numpy(grams["train"]), targets, torch.from_numpy(grams["test"]))
    right = (regression.prediction.argmax(1) == truth).double().mean()
    return xr.Dataset({
        "large_accuracy": float(right), "large_depth": depth, "large_train": images,
        "large_pixels": x.shape[2] * x.shape[3], "large_classes": classes, "large_jitter": regression.jitter,
    })  # fmt: skip


def one_block(lab, *, dataset, rows, columns, depth) -> xr.Dataset:
    """The kernel between some images of a part and some of the training part."""
    split = data.load(dataset, generator=lab.seed("large"))
    (part, *ends) = rows
    x1 = (split.train if part == "train" else split.test)[0][slice(*ends)].to(lab.device)
    x2 = None if part == "train" and tuple(ends) == tuple(columns) else split.train[0][slice(*columns)].to(lab.device)
    gram = kernels.cntk(x1, x2, depth=depth, dtype=torch.float32)
    return xr.Dataset({"gram": (("row", "column"), gram.cpu().numpy())})


@study.claim("gap-wins-under-shift")
def pooling_gain(result: xr.Dataset) -> xr.DataArray:
    return gain(result, "flatten")


@study.claim("conv-beats-fc")
def convolution_gain(result: xr.Dataset) -> xr.DataArray:
    return gain(result, "dense")


def gain(result: xr.Dataset, over: str) -> xr.DataArray:
    """Accuracy on rolled images: the pooled kernel's less another's, split by split."""
    found = result.accuracy.sel(rolled=True, drop=True)
    return found.sel(kernel="gap", drop=True) - found.sel(kernel=over, drop=True)


@study.claim("finite-cnn-converges-slope-gap")
def slope_gap(result: xr.Dataset) -> xr.DataArray:
    return slope(result, "gap")


@study.claim("finite-cnn-converges-slope-flatten")
def slope_flatten(result: xr.Dataset) -> xr.DataArray:
    return slope(result, "flatten")


def slope(result: xr.Dataset, head: str) -> xr.DataArray:
    """The exponent of a power law in the channels, 32 to 256, of the mean over networks."""
    found = result.finite_error.sel(head=head, drop=True).mean("net")
    found = found.sel(channels=(found.channels >= 32) & (found.channels <= LARGEST))
    if found.sizes["channels"] < 3:
        return not_applicable("a slope needs three numbers of channels between 32 and 256")
    return xr.DataArray(stats.loglog_slope(found.channels, found).estimate)


@study.claim("finite-cnn-converges-error-gap")
def error_gap(result: xr.Dataset) -> xr.DataArray:
    return error(result, "gap")


@study.claim("finite-cnn-converges-error-flatten")
def error_flatten(result: xr.Dataset) -> xr.DataArray:
    return error(result, "flatten")


def error(result: xr.Dataset, head: str) -> xr.DataArray:
    """The mean distance to the exact kernel at 256 channels."""
    if LARGEST not in result.channels:
        return not_applicable("256 channels were not run")
    return result.finite_error.sel(head=head, channels=LARGEST, drop=True).mean("net")


@study.claim("cifar-77")
def photos_accuracy(result: xr.Dataset) -> xr.DataArray:
    if "large_accuracy" not in result or any(int(result[name]) != value for name, value in PAPER.items()):
        return not_applicable("the 11-layer kernel of all 50,000 training photos of 32 x 32 pixels was not run")
    return 100 * result.large_accuracy


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Accuracy by kernel on rolled and unrolled images, and the finite networks' distance to the exact kernel."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(1, 2, subplot_titles=("test accuracy", "distance to the exact kernel"))
    names = {"gap": "convolutional, pooled", "flatten": "convolutional, flattened", "dense": "fully connected"}
    for rolled, name, color in ((True, "rolled", "rgb(46, 124, 196)"), (False, "as they are", "rgb(170, 170, 170)")):
        found = result.accuracy.sel(rolled=rolled, kernel=list(names))
        drawing.add_bar(
            x=list(names.values()), y=found.mean("split").values, name=name, marker_color=color,
            error_y={"type": "data", "array": found.std("split").values, "thickness": 1}, row=1, col=1,
        )  # fmt: skip
    for head, color in (("gap", "rgb(214, 104, 44)"), ("flatten", "rgb(122, 92, 170)")):
        found = result.finite_error.sel(head=head)
        drawing.add_scatter(
            x=result.channels.values, y=found.mean("net").values, mode="lines+markers", name=names[head],
            line={"color": color}, error_y={"type": "data", "array": found.std("net").values, "thickness": 1},
            row=1, col=2,
        )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="channels", tickvals=result.channels.values, row=1, col=2)
    drawing.update_yaxes(range=[0, 1], row=1, col=1)
    drawing.update_yaxes(type="log", row=1, col=2)
    return drawing
