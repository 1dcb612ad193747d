"""A kernel matrix in blocks of examples; of a symmetric one the upper half."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class Blocks(ABC):
    """What makes blocks of a kernel; called with the place of a block.

    Args:
        x1, x2: inputs; `x2` is `None` for a symmetric kernel.
        block: examples of either side in a block.
        dtype: of the kernel.
        shape: of the kernel of two examples.
    """

    def __init__(self, x1: Tensor, x2: Tensor | None, block: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.x1, self.x2, self.block, self.dtype, self.shape = x1, x2, block, dtype, shape

    @abstractmethod
    def __call__(self, i: int, j: int) -> Tensor:
        """(n1, n2, *shape) of one block."""

    def rows(self, i: int) -> slice:
        """Examples of a block."""
        return slice(i * self.block, (i + 1) * self.block)

    @property
    def sides(self) -> tuple[int, int]:
        """Examples on either side."""
        return len(self.x1), len(self.x1 if self.x2 is None else self.x2)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of all blocks that are made, row by row."""
        n1, n2 = self.sides
        rows, columns = -(-n1 // self.block), -(-n2 // self.block)
        return [(i, j) for i in range(rows) for j in range(i if self.x2 is None else 0, columns)]

    def both(self, i: int, j: int) -> list[tuple[int, int]]:
        """A place, and that of its mirror image if it has one."""
        return [(i, j)] if self.x2 is not None or i == j else [(i, j), (j, i)]

    def whole(self, progress: Callable[[int, int], object] | None = None) -> Tensor:
        """The kernel, in memory."""
        result: Tensor | None = None
        for done, (i, j) in enumerate(self.places, start=1):
            part = self(i, j)
            if len(self.places) == 1:
                result = part
            else:
                result = part.new_empty(*self.sides, *self.shape) if result is None else result
                result[self.rows(i), self.rows(j)] = part
                if len(self.both(i, j)) == 2:
                    result[self.rows(j), self.rows(i)] = mirrored(part)
            if progress:
                progress(done, len(self.places))
        assert result is not None
        return result


def mirrored(part: Tensor) -> Tensor:
    """The block on the other side of the diagonal."""
    return part.transpose(0, 1) if part.ndim == 2 else part.permute(1, 0, 3, 2)
