"""MNIST-1D."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded
from .split import Split


def mnist1d(
    *, train: int = 4000, validation: int = 0, test: int = 1000, generator: torch.Generator | int | None = 0
) -> Split:
    """MNIST-1D: signals of 40 numbers in ten classes (Greydanus and Kobak, "Scaling Down Deep Learning", ICML 2024).

    Templates of the ten digits that are padded, scaled, shifted, sheared and laid over with noise, made by the authors'
    package `mnist1d` on the spot. All signals together have mean 0 and standard deviation 1.

    Args:
        train, validation, test: examples of these parts; classes are equally frequent in all of them together.
        generator: what makes them. An integer is the package's own seed (modulo 2^32): with 42 and the default sizes
            these are the data that the package makes unless told otherwise.

    Returns:
        A split of signals (N, 1, 40), float32, and labels (N,), int64, from 0 to 9.

    Raises:
        InputError: a part of negative size, or nothing to train or test on.
    """
    if train < 1 or validation < 0 or test < 1:
        raise InputError(f"train={train} and test={test} must be at least 1 and validation={validation} at least 0")
    n = train + validation + test
    x, y = _made(n, generator)
    validation_part = (x[train : train + validation], y[train : train + validation]) if validation else None
    return Split(
        train=(x[:train], y[:train]),
        validation=validation_part,
        test=(x[train + validation : n], y[train + validation : n]),
        range=(x.min().item(), x.max().item()),
        classes=tuple(str(digit) for digit in range(10)),
        name="mnist1d",
    )


def _made(n: int, generator: torch.Generator | int | None) -> tuple[Tensor, Tensor]:
    """At least `n` examples, by the package, which draws from the global states of `random` and numpy."""
    import numpy
    from mnist1d.data import get_dataset_args, make_dataset

    if isinstance(generator, int):
        seed = generator % 2**32
    else:
        generator = seeded(generator)
        seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    arguments = get_dataset_args()
    arguments.num_samples = -(-n // 10) * 10
    arguments.train_split = 1.0
    arguments.seed = seed
    states = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - what the package uses
    try:
        made = make_dataset(arguments)
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])  # noqa: NPY002
    return torch.from_numpy(made["x"]).float()[:, None], torch.from_numpy(made["y"]).long()
