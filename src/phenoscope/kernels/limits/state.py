"""What goes from rule to rule: the two covariances of a layer's outputs between two sets of examples."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import InputError


@dataclasses.dataclass(eq=False)
class State:
    """The kernels of one layer's outputs, one feature's covariance standing for all.

    They lie as (S, n1, *space, n2, *space) where every pair of positions matters, else as (*space, S, n1, n2): each
    position with itself. Between two sets of examples S is 1. Of every example with itself, S counts the examples and
    n1 = n2 = 1.

    Attributes:
        nngp: covariance of the outputs.
        ntk: product of their gradients; `None` where it is not wanted, or still zero.
        channels: how many features the user's layer has.
        space: sides of what the features stand on; `()` for vectors.
        last: whether the features are the last axis, as for tokens, and not the one after the batch.
        full: whether every pair of positions is there.
        tangent: whether `ntk` is wanted.
        same: whether rows and columns are the same examples.
        mixed: whether the features' covariances differ, being those of several positions.
    """

    nngp: Tensor
    ntk: Tensor | None
    channels: int
    space: tuple[int, ...]
    last: bool
    full: bool
    tangent: bool
    same: bool
    mixed: bool = False

    @property
    def rank(self) -> int:
        """How many axes space has."""
        return len(self.space)

    def parts(self) -> list[Tensor]:
        """The kernels there are."""
        return [self.nngp] if self.ntk is None else [self.nngp, self.ntk]

    def copy(self) -> State:
        """The same with kernels of its own."""
        return dataclasses.replace(self, nngp=self.nngp.clone(), ntk=None if self.ntk is None else self.ntk.clone())

    def with_parts(self, parts: list[Tensor], **changes: Any) -> State:
        """The same with other kernels."""
        return dataclasses.replace(self, nngp=parts[0], ntk=parts[1] if len(parts) > 1 else None, **changes)

    def matrices(self, kernel: Tensor) -> Tensor:
        """A kernel as (S', A, B), contiguous: the same memory where it is so already."""
        points = math.prod(self.space)
        if not self.full:
            return kernel.contiguous().view(-1, *kernel.shape[-2:])
        return kernel.contiguous().view(kernel.shape[0], kernel.shape[1] * points, -1)

    def vectors(self, of_examples: Tensor) -> Tensor:
        """Numbers (n, *space) of examples beside `matrices`, as (S', A)."""
        if self.full:
            return of_examples.reshape(self.nngp.shape[0], -1)
        return of_examples.movedim(0, -1).reshape(-1, 1 if self.nngp.shape[-3] > 1 else len(of_examples))

    def variances(self) -> Tensor:
        """Of every example with itself: (n, *space)."""
        if self.full:
            points = math.prod(self.space)
            inner = self.nngp.reshape(-1, points, points).diagonal(dim1=1, dim2=2)
            return inner.reshape(-1, *self.space).clone()
        return self.nngp[..., 0, 0].movedim(-1, 0).clone()

    def covariances(self) -> Tensor:
        """Of every example's positions with each other: (n, points, points)."""
        points = math.prod(self.space)
        return self.nngp.reshape(-1, points, points).clone()

    def spatial_diagonal(self) -> State:
        """Only each position with itself."""
        if not self.full or not self.space:
            return dataclasses.replace(self, full=False)
        points = math.prod(self.space)

        def cut(kernel: Tensor) -> Tensor:
            some, rows, columns = kernel.shape[0], kernel.shape[1], kernel.shape[2 + self.rank]
            inner = kernel.reshape(some, rows, points, columns, points).diagonal(dim1=2, dim2=4)
            return inner.movedim(-1, 0).reshape(*self.space, some, rows, columns)

        return self.with_parts([cut(each) for each in self.parts()], full=False)


class Rule(abc.ABC):
    """What a layer does to the state.

    Attributes:
        needs: what of every example with itself it uses: nothing, its "variances", or its whole "covariance".
        in_place: whether it overwrites the state that it is given.
        pairs: whether it needs every pair of positions; `None` where what comes after decides.
    """

    needs: ClassVar[str] = ""
    in_place: ClassVar[bool] = False
    pairs: ClassVar[bool | None] = None

    @abc.abstractmethod
    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        """The state after the layer, from those before and what it needs of rows and columns."""


def lift(
    x1: Tensor, x2: Tensor | None, *, axis: int, full: bool, tangent: bool, same: bool, dtype: torch.dtype
) -> State:
    """The state of the data themselves: products of two examples' features over their number; no gradients.

    Args:
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `None` for every example of `x1` with itself alone.
        axis: which axis has the features.
        full, tangent, same: as in the state.
        dtype: of the state.
    """
    a = x1.to(dtype).movedim(axis, -1)
    b = None if x2 is None else x2.to(dtype).movedim(axis, -1)
    space, channels = tuple(a.shape[1:-1]), a.shape[-1]
    points, rank = math.prod(space), len(space)
    if full and space:
        flat = a.reshape(len(a), points, channels)
        if b is None:
            nngp = (flat @ flat.transpose(1, 2)).reshape(len(a), 1, *space, 1, *space)
        else:
            nngp = (flat.reshape(-1, channels) @ b.reshape(-1, channels).T).reshape(1, len(a), *space, len(b), *space)
    elif b is None:
        nngp = a.square().sum(-1).movedim(0, -1)[..., None, None].contiguous()
    else:
        nngp = (a.movedim(0, rank) @ b.movedim(0, rank).transpose(-1, -2)).unsqueeze(rank)
    return State(nngp.div_(channels), None, channels, space, axis != 1, full and bool(space), tangent, same)


def need_dense(state: State, what: str) -> None:
    """Refuse a layer on vectors that is given something spatial with its features elsewhere."""
    if state.space and not state.last:
        raise InputError(f"{what} acts on the last axis, which is no feature axis here: flatten first")
