"""Any data as a `Split`: `load`, `from_loader`, `from_torchvision`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded
from .batches import as_tensors
from .split import Split

_TEST_SHARE = 0.25


def load(make_data: Any, *, generator: torch.Generator | int | None = None) -> Split:
    """Data in any form as a `Split`.

    Args:
        make_data: a function that gives one of the other forms, called with `generator` where its signature names one;
            a `Split`; a pair of tensors `(x, y)`; a loader of batches `(x, y)`, or a data set of pairs. Where there are
            no parts yet, a quarter of the examples, chosen at random, becomes the test part.
        generator: handed to the function; or what chooses the test part.

    Returns:
        A split. Inputs of whole bytes become numbers from 0 to 1; other inputs stay as they are.

    Raises:
        InputError: something else, inputs that are NaN or empty, labels that are not whole numbers from 0 on, one class
            alone. A `Split` that names no classes may have real labels.
    """
    generator = seeded(generator) if generator is None else generator
    if callable(make_data) and not isinstance(make_data, (Split, Iterable)):
        name = getattr(make_data, "__name__", type(make_data).__name__)
        made = make_data(**({"generator": generator} if _names(make_data, "generator") else {}))
        if callable(made) and not isinstance(made, (Split, Iterable)):
            raise InputError(f"{name} gave a {type(made).__name__}; a data function gives a Split or a pair of tensors")
        return load(made, generator=generator)
    if isinstance(make_data, Split):
        return _checked(make_data)
    return _split(*as_tensors(make_data), generator, "data")


def from_loader(
    train: Any,
    test: Any = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "data",
    generator: torch.Generator | int | None = None,
) -> Split:
    """A training and a test loader (or pairs of tensors, or data sets of pairs), read into memory, as a `Split`.

    Args:
        train, test: the parts; without a test part a quarter of the examples, chosen at random, becomes one.
        classes: their names, in the order of the labels.
        name: of the data set.
        generator: what chooses the test part.

    Raises:
        InputError: as `load` does.
    """
    if test is None:
        split = _split(*as_tensors(train), generator, name)
    else:
        parts = [_numbers(*as_tensors(part)) for part in (train, test)]
        y = torch.cat([part[1] for part in parts])
        split = _checked(_named(parts[0], parts[1], y, name))
    if classes is not None:
        if len(classes) < len(split.classes):
            raise InputError(f"{len(classes)} names for {len(split.classes)} classes")
        split = dataclasses.replace(split, classes=tuple(classes))
    return split


def from_torchvision(
    name: str, root: str, *, download: bool = False, generator: torch.Generator | int | None = None, **options: Any
) -> Split:
    """A data set of torchvision, such as "CIFAR10", read into memory.

    Args:
        name: of a class in `torchvision.datasets`.
        root: where its files lie.
        download: whether torchvision may fetch them.
        generator: what chooses a test part, where the data set has none of its own.
        options: more arguments of the class. Images are turned into tensors (C, H, W) from 0 to 1, unless `transform=`
            says otherwise.

    Raises:
        InputError: torchvision is missing, has no such data set, or images differ in size.
    """
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise InputError("from_torchvision needs torchvision: install the one of your torch") from error
    make = getattr(datasets, name, None)
    if not callable(make):
        raise InputError(f"torchvision.datasets has no {name!r}")
    options = {"transform": _pixels, **options}
    if _names(make, "download", exactly=True):
        options["download"] = download
    if _names(make, "train", exactly=True):
        parts = [make(root, train=True, **options), make(root, train=False, **options)]
    elif _names(make, "split", exactly=True) and "split" not in options:
        parts = [make(root, split="train", **options), make(root, split="test", **options)]
    else:
        parts = [make(root, **options)]
    return from_loader(*parts, classes=getattr(parts[0], "classes", None), name=name, generator=generator)


def _names(function: Callable[..., Any], argument: str, *, exactly: bool = False) -> bool:
    """Whether a function can be called with this keyword; `exactly`: whether it lists it."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return False
    return any(
        (p.name == argument and p.kind is not p.POSITIONAL_ONLY) or (not exactly and p.kind is p.VAR_KEYWORD)
        for p in parameters
    )


def _pixels(image: Any) -> Tensor:
    """A picture as a tensor (C, H, W) from 0 to 1."""
    import numpy

    pixels = torch.from_numpy(numpy.array(image))
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels.permute(2, 0, 1).float() / 255


def _split(x: Tensor, y: Tensor, generator: torch.Generator | int | None, name: str) -> Split:
    x, y = _numbers(x, y)
    if len(x) < 4:
        raise InputError(f"{len(x)} examples are too few to set a quarter of them aside for testing: give at least 4")
    generator = seeded(generator)
    order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    test, train = order.tensor_split([max(1, round(_TEST_SHARE * len(x)))])
    return _checked(_named((x[train], y[train]), (x[test], y[test]), y, name))


def _named(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], y: Tensor, name: str) -> Split:
    for _, labels in (train, test):
        if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
            raise InputError(f"labels must be whole numbers (N,), not {labels.dtype} of shape {tuple(labels.shape)}")
    low = min(train[0].min().item(), test[0].min().item())
    high = max(train[0].max().item(), test[0].max().item())
    classes = tuple(str(label) for label in range(int(y.max()) + 1))
    return Split(train=train, validation=None, test=test, range=(low, high), classes=classes, name=name)


def _numbers(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes as numbers from 0 to 1, labels as int64."""
    if x.dtype == torch.uint8:
        x = x.float() / 255
    return x, y if y.is_floating_point() else y.long()


def _checked(split: Split) -> Split:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for part, pair in parts.items():
        if pair is None:
            continue
        try:
            _, y = as_tensors(pair)
        except InputError as error:
            raise InputError(f"{split.name}, {part} part: {error}") from error
        if not split.classes:
            continue
        if y.is_floating_point() or y.ndim != 1:
            raise InputError(f"{split.name}, {part} part: labels must be whole numbers (N,), not {y.dtype}")
        if int(y.min()) < 0 or int(y.max()) >= len(split.classes):
            raise InputError(
                f"{split.name}, {part} part: labels go from {int(y.min())} to {int(y.max())}, "
                f"but there are {len(split.classes)} classes, counted from 0"
            )
    if split.train[0].shape[1:] != split.test[0].shape[1:]:
        raise InputError(
            f"{split.name}: inputs of training and test differ in shape, {tuple(split.train[0].shape[1:])} and "
            f"{tuple(split.test[0].shape[1:])}"
        )
    if split.classes and len(split.train[1].unique()) < 2:
        raise InputError(f"{split.name}: all training labels are {int(split.train[1][0])}; there must be two classes")
    return split
