"""The bench of the contrastive methods: tinted digits, random views of them, an encoder, its training and a probe."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ... import data, models, represent, train

NOISE = 0.05


def encoder(shape, *, width: int = 16, generator=None) -> nn.Module:
    """Three convolutions with batch norms and ReLUs, of which the first and the last have stride 2; flattened."""
    return models.cnn(
        shape, None, width=(width, 2 * width, 4 * width), stride=(2, 1, 2), pool=1, norm="batch", init="torch",
        generator=generator,
    )  # fmt: skip


def resnet18(shape, *, generator=None) -> nn.Module:
    """A ResNet of 18 layers without the last: what is pooled over all places."""
    whole = models.resnet(shape, depth=18, generator=generator)
    return nn.Sequential(*list(whole)[:-1])


def cifar10(*, generator=None) -> data.Split:
    """CIFAR-10, read by torchvision from the folder `data`."""
    return data.from_torchvision("CIFAR10", "data", generator=generator)


def noise(x, generator=None):
    """The faint noise that ends every view."""
    drawn = torch.randn(x.shape, generator=generator, device=x.device if generator is None else generator.device)
    return x + NOISE * drawn.to(x)


def view(kinds: tuple[str, ...], *, spatial=data.spatial, color=data.color):
    """A random view by the kinds of distortion named, of "spatial" and "color", and noise."""
    named = {"spatial": spatial, "color": color}
    return data.compose(*(named[kind] for kind in kinds), noise)


def network(lab, model, split: data.Split, seed: int) -> nn.Module:
    """An encoder as it is before training."""
    built = train.build(model, shape=split.train[0].shape[1:], generator=lab.seed("encoder", seed))
    return built.to(lab.device)


def contrasted(
    lab, built: nn.Module, split: data.Split, transform, *, seed: int, steps: int, batch: int = 128,
    temperature: float = 0.5,
) -> represent.SSLResult:  # fmt: skip
    """The encoder after training by `represent.simclr`; arms that differ in one thing share all other seeds."""
    return represent.simclr(
        built,
        split.train[0],
        transform,
        steps=steps,
        batch_size=batch,
        temperature=temperature,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        generator=lab.seed("contrast", seed),
    )
