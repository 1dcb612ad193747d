"""How much of the tangent kernel is made at once within a budget of memory, and its blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.taps import suited
from .block import Block, block
from .blocks import Blocks
from .contract import contracted
from .plan import Plan

_MEMORY = 256 * 2**20
_ENOUGH = 32  # examples in a block of a trace that are worth going through outputs in groups


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is done at once.

    Attributes:
        block: examples of either side whose slopes are kept.
        outputs: of the network, for which they are kept.
        step: examples in a pass.
        space: bytes for what is made on the way of a product.
        kept: for every part of the plan whether its gradients are kept.
    """

    block: int
    outputs: int
    step: int
    space: int
    kept: list[bool]


def memory_or_default(model: nn.Module, memory: int | None) -> int:
    """Bytes: those asked for, or a quarter of a card, 256 megabytes elsewhere."""
    if memory is not None:
        if memory < 1:
            raise InputError(f"memory must be a number of bytes, not {memory}")
        return memory
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return int(torch.cuda.get_device_properties(device).total_memory // 4) if device.type == "cuda" else _MEMORY


def sizes(plan: Plan, n1: int, n2: int | None, count: int, full: bool, memory: int, chunk: int | None) -> Sizes:
    """How much fits: three quarters of the memory for what is kept of blocks, an eighth each for passes and products.

    Args:
        plan: of the network.
        n1, n2: examples; `n2` is `None` for a symmetric kernel.
        count: outputs.
        full: whether they are kept apart.
        memory: bytes.
        chunk: examples in a block, whatever they take.
    """
    item = next(iter(plan.model.parameters())).element_size()
    largest = max(n1, n2 or 0)

    def kept(outputs: int) -> list[bool]:
        return [part.keeps_gradients(min(largest, 256), outputs, full) for part in plan.parts]

    def fits(outputs: int) -> int:
        each = sum(
            outputs * part.rule.size if keeps else part.inputs + outputs * part.given
            for part, keeps in zip(plan.parts, kept(outputs), strict=True)
        )
        room = (memory // 4 * 3) // max(1, item * (each + outputs * plan.rest_size))
        if n2 is None and n1 <= room:
            return n1
        room = min(room // 2, math.isqrt(memory // 8 // (item * (count**2 if full else 1))))
        return min(max(1, room), largest)

    outputs = count
    while outputs > 1 and fits(outputs) < (1 if full else min(largest, _ENOUGH)):
        outputs = -(-outputs // 2)
    given = sum(part.given for part in plan.parts)
    patches = max((part.positions * getattr(part.rule, "width", 1) for part in plan.parts), default=0)
    one_pass = plan.saved + item * (2 * given + patches) + 1
    step = max(1, (memory // 8) // one_pass)
    return Sizes(chunk or fits(outputs), outputs, step, max(1, memory // 8), kept(outputs))


class Tangents(Blocks):
    """Blocks of the tangent kernel, with what is kept of a row of them.

    Args:
        plan: of the network.
        x1, x2: inputs; `x2` is `None` for a symmetric kernel.
        chosen: outputs.
        full: whether they are kept apart; otherwise the mean of their kernels is made.
        size: how much is done at once.
    """

    def __init__(self, plan: Plan, x1: Tensor, x2: Tensor | None, chosen: range, full: bool, size: Sizes) -> None:
        shape = (len(chosen),) * 2 if full else ()
        super().__init__(x1, x2, size.block, next(plan.model.parameters()).dtype, shape)
        self.plan, self.chosen, self.full, self.size = plan, chosen, full, size
        self._row: tuple[tuple[slice, int], Block] | None = None

    def __call__(self, i: int, j: int) -> Tensor:
        """(n1, n2, C, C), or (n1, n2), of one block."""
        starts = range(0, len(self.chosen), self.size.outputs)
        symmetric, x = self.x2 is None and i == j, self.x1 if self.x2 is None else self.x2
        lines = []
        for a in starts:
            left = self._left(i, a)
            line = []
            for b in starts if self.full else [a]:
                right = left if symmetric and a == b else self._block(x[self.rows(j)], b)
                line.append(contracted(left, right, full=self.full, space=self.size.space))
            lines.append(torch.cat(line, 3) if len(line) > 1 else line[0])
            del left
        if self.full:
            return torch.cat(lines, 2) if len(lines) > 1 else lines[0]
        return sum(lines[1:], lines[0]) / len(self.chosen)

    def _left(self, i: int, start: int) -> Block:
        if self._row is None or self._row[0] != (self.rows(i), start):
            self._row = None  # its memory is needed for the next
            self._row = (self.rows(i), start), self._block(self.x1[self.rows(i)], start)
        return self._row[1]

    def _block(self, x: Tensor, start: int) -> Block:
        size, some = self.size, self.chosen[start : start + self.size.outputs]
        return block(self.plan, suited(self.plan.model, x), some, size.kept, step=size.step, space=size.space)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrices and convolutions of float32 in float32, also where a card would take TF32."""
    places: Any = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
