"""Data in, batches out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded
from .split import Split

Data = tuple[Tensor, Tensor] | Iterable[Any]


def batches(
    data: Data, size: int, *, generator: torch.Generator | int | None = None, shuffle: bool = False
) -> Iterator[Any]:
    """Go through data once, in batches.

    Args:
        data: a pair of tensors `(x, y)`, one row an example; or a loader, whose own batches come as they are: the other
            arguments do not matter then.
        size: examples in a batch; the last one may have fewer.
        generator: what shuffles.
        shuffle: whether examples come in random order; otherwise batches are views of the tensors.

    Returns:
        An iterator over pairs `(x, y)`, or over what the loader gives.

    Raises:
        InputError: something else than a pair of tensors or a loader, tensors that are empty or differ in length,
            inputs that are NaN, or a size under 1.
    """
    pair = _pair(data, size)
    if pair is None:
        return iter(data)
    return _slices(*pair, size, seeded(generator) if shuffle else None)


def batch_count(data: Data, size: int) -> int | None:
    """How many batches there will be; `None` if the data are a loader that does not know.

    Raises:
        InputError: as `batches` does.
    """
    pair = _pair(data, size)
    if pair is not None:
        return -(-len(pair[0]) // size)
    try:
        return len(data) if isinstance(data, Sized) else None
    except TypeError:  # a DataLoader over an iterable data set has a __len__ that only raises
        return None


def as_tensors(data: Any) -> tuple[Tensor, Tensor]:
    """Data in any form as one pair of tensors, in memory.

    Args:
        data: a pair of tensors `(x, y)`, a loader of batches of two tensors, or a data set of pairs (input, label).

    Raises:
        InputError: what `batches` refuses, a loader without batches, or examples that cannot be stacked.
    """
    pair = _pair(data, 1) if not _is_dataset(data) else None
    if pair is not None:
        return pair
    if _is_dataset(data):
        data = torch.utils.data.DataLoader(data, batch_size=256)
    xs, ys = [], []
    try:
        for x, y in data:
            xs.append(torch.as_tensor(x))
            ys.append(torch.as_tensor(y))
        if not xs:
            raise InputError("the loader gave no batches")
        pair = torch.cat(xs), torch.cat(ys)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {type(data).__name__} gave no stackable batches (x, y): {error}") from error
    _check(*pair)
    return pair


def _is_dataset(data: Any) -> bool:
    return isinstance(data, torch.utils.data.Dataset)


def _pair(data: Data, size: int) -> tuple[Tensor, Tensor] | None:
    """The tensors, checked; `None` for a loader."""
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        x, y = data
        if size < 1:
            raise InputError(f"a batch has at least 1 example, not {size}")
        _check(x, y)
        return x, y
    if isinstance(data, Split):
        raise InputError("a whole Split is no data to go through: pass a part of it, such as split.train")
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise InputError(f"data must be a pair of tensors (x, y) or a loader of batches, not a {type(data).__name__}")
    return None


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise InputError(f"x and y need one row for each example; their shapes are {tuple(x.shape)}, {tuple(y.shape)}")
    if x.numel() == 0:
        raise InputError(f"x is empty: its shape is {tuple(x.shape)}")
    # The minimum of a tensor with a NaN is NaN; finding it takes no memory, unlike x.isnan().
    if x.is_floating_point() and x.min().isnan():
        bad = int(x.reshape(len(x), -1).isnan().any(1).sum())
        raise InputError(f"x has NaN in {bad} of {len(x)} examples: remove or fill them")


def _slices(x: Tensor, y: Tensor, size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
    if generator is None:
        yield from zip(x.split(size), y.split(size), strict=True)
        return
    order = torch.randperm(len(x), generator=generator, device=generator.device)
    for rows in order.split(size):
        yield x[rows.to(x.device)], y[rows.to(y.device)]
