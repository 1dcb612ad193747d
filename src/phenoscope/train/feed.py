"""The batches of a fleet: examples shared or of each member, in each member's own order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..data.batches import as_tensors, batch_count
from .order import orders, spans

Pair = tuple[Tensor, Tensor]


class Feed:
    """Data of a fleet on its device.

    Args:
        data: `(x, y)` for all members, or one such pair each, of equal shapes.
        members: how many there are.
        labels: labels (members, N) in place of `y`.
        rows: indices (members, n): which examples a member trains on.
        device: where to.
        dtype: of inputs that are floating point.

    Raises:
        InputError: data that `batches` refuses, shapes that do not match, or rows that are no indices of examples.
    """

    def __init__(
        self,
        data: Any,
        members: int,
        *,
        labels: Tensor | None,
        rows: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        x, y, self.shared_x = _stacked(data, members)
        self.n = x.shape[0] if self.shared_x else x.shape[1]
        self.shared_y = self.shared_x
        if labels is not None:
            y, self.shared_y = torch.as_tensor(labels), False
            if y.shape[:2] != (members, self.n):
                raise InputError(f"labels have shape {tuple(y.shape)}: give (members, examples) = {(members, self.n)}")
        self.x = x.to(device, dtype if x.is_floating_point() else x.dtype)
        self.y = y.to(device)
        self.members, self.device = members, device
        self.rows = None if rows is None else _checked_rows(rows, members, self.n).to(device)
        if self.rows is not None:
            self.n = self.rows.shape[1]

    def count(self, batch_size: int | None) -> int:
        """Batches in an epoch."""
        return 1 if batch_size is None else -(-self.n // batch_size)

    def first(self, batch_size: int | None) -> Tensor:
        """Inputs like those of one member's batch, (batch, ...)."""
        return (self.x if self.shared_x else self.x[0])[: self.n if batch_size is None else batch_size]

    def epochs(
        self, batch_size: int | None, generators: Sequence[torch.Generator]
    ) -> Iterator[Callable[[int, int], Pair]]:
        """For every step what gives members `start` to `end` their batch, epoch after epoch without end."""
        if batch_size is None:
            rows = self.rows
            while True:
                yield lambda start, end: self._whole(rows, start, end)
        for order in orders(self.n, generators, self.device):
            chosen = order if self.rows is None else self.rows.gather(1, order)
            for first, last in spans(self.n, batch_size):
                yield self._picker(chosen[:, first:last])

    def _picker(self, rows: Tensor) -> Callable[[int, int], Pair]:
        return lambda start, end: self._whole(rows, start, end)

    def _whole(self, rows: Tensor | None, start: int, end: int) -> Pair:
        own = None if rows is None else rows[start:end]
        return _picked(self.x, self.shared_x, own, start, end), _picked(self.y, self.shared_y, own, start, end)


def _picked(values: Tensor, shared: bool, rows: Tensor | None, start: int, end: int) -> Tensor:
    """(end - start, batch, ...): these rows of the values, all of them without rows."""
    if rows is None:
        return values.expand(end - start, *values.shape) if shared else values[start:end]
    if shared:
        return values.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    members = torch.arange(start, end, device=values.device)[:, None]
    return values[members, rows]


def pairs_of(data: Any) -> Any:
    """One pair of tensors for all members, or a sequence of pairs."""
    if isinstance(data, Sequence) and len(data) > 0 and all(map(_is_pair, data)):
        return data
    return as_tensors(data)


def _stacked(data: Any, members: int) -> tuple[Tensor, Tensor, bool]:
    """x, y, and whether all members share them."""
    if _is_pair(data):
        batch_count(data, 1)
        return *data, True
    if len(data) != members:
        raise InputError(f"there are {len(data)} pairs of data for {members} members: give one each, or one for all")
    for index, (x, y) in enumerate(data):
        batch_count((x, y), 1)
        if x.shape != data[0][0].shape or y.shape != data[0][1].shape:
            raise InputError(
                f"the data of member {index} have shapes {tuple(x.shape)}, {tuple(y.shape)}, those of member 0 "
                f"{tuple(data[0][0].shape)}, {tuple(data[0][1].shape)}: give all the same number of examples"
            )
    return torch.stack([x for x, _ in data]), torch.stack([y for _, y in data]), False


def _is_pair(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _checked_rows(rows: Any, members: int, n: int) -> Tensor:
    rows = torch.stack([torch.as_tensor(row) for row in rows]) if not isinstance(rows, Tensor) else rows
    if (
        rows.is_floating_point()
        or rows.dtype == torch.bool
        or rows.ndim != 2
        or len(rows) != members
        or not rows.numel()
    ):
        raise InputError(
            f"rows are {rows.dtype} of shape {tuple(rows.shape)}: give indices of examples, (members, n) with "
            f"{members} members"
        )
    if int(rows.min()) < 0 or int(rows.max()) >= n:
        raise InputError(f"rows run from {int(rows.min())} to {int(rows.max())}, but there are examples 0 to {n - 1}")
    return rows.long()
