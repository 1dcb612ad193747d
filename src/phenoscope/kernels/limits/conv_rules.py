"""What a convolution does to the kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from . import compiled
from .box import box_sum
from .dense_rules import Affine
from .state import Rule, State


@dataclasses.dataclass(frozen=True)
class Conv(Rule):
    """The mean over the filter's taps of the kernels at positions shifted together, then a linear map.

    Novak, Xiao, Bahri et al., "Bayesian Deep Convolutional Networks with Many Channels are Gaussian Processes"
    (ICLR 2019), eq. 7; the sum over taps is separable, so every axis of space is done by itself.

    Attributes:
        law: of weights and biases.
        inputs, outputs: channels.
        size, stride, dilation: of every axis.
        padding: before and after, of every axis.
        mode: how the padding is filled, as torch calls it.
    """

    law: Affine
    inputs: int
    outputs: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    mode: str

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        if (state.last and state.space) or state.rank != len(self.size):
            raise InputError(
                f"a convolution over {len(self.size)} axes was given {state.rank} axes of space"
                + (" with the features last" if state.last and state.space else "")
            )
        if state.channels != self.inputs:
            raise InputError(f"takes {self.inputs} channels and is given {state.channels}")
        if state.full and compiled.suits(state.nngp):
            parts = self._compiled(state)
        else:
            taps = math.prod(self.size)
            sums = [self._sum(state, each).mul_(1 / taps) for each in state.parts()]
            parts = self._affine(sums, state.tangent)
        space = parts[0].shape[2 : 2 + state.rank] if state.full else parts[0].shape[: state.rank]
        return state.with_parts(parts, channels=self.outputs, space=tuple(space), mixed=False)

    def _affine(self, parts: list[Tensor], tangent: bool) -> list[Tensor]:
        nngp, ntk = self.law.apply_(parts[0], parts[1] if len(parts) > 1 else None, tangent)
        return [nngp] if ntk is None else [nngp, ntk]

    def _compiled(self, state: State) -> list[Tensor]:
        """Both kernels behind the layer, each in one pass."""
        parts = [self._filled(state, each) for each in state.parts()]
        count, rows, columns = state.nngp.shape[0], state.nngp.shape[1], state.nngp.shape[2 + state.rank]
        sides = parts[0].shape[2 : 2 + state.rank]
        padding = self.padding if self.mode == "zeros" else ((0, 0),) * state.rank
        outs = tuple(self._positions(axis, side, *padding[axis]) for axis, side in enumerate(sides))
        before = tuple(first for first, _ in padding)
        window = (self.size, self.stride, self.dilation, before)
        if state.rank == 1:  # a second axis of one position
            window = tuple((each[0], extra) for each, extra in zip(window, (1, 1, 1, 0), strict=True))  # type: ignore[assignment]
        shape_in, shape_out = ((*each, 1)[:2] for each in (tuple(sides), outs))
        taps = math.prod(self.size)
        fused = self.law.inputs is None  # in the NTK parametrization all that follows fits into the same pass
        done: list[Tensor] = []
        for part in parts:
            out = part.new_empty(count * rows, *shape_out, columns, *shape_out)
            box_sum(
                part.contiguous().view(count * rows, *shape_in, columns, *shape_in),
                out,
                window,
                scale=(self.law.weight if fused else 1.0) / taps,
                shift=self.law.bias if fused and not done else 0.0,
                plus=done[0] if fused and done else None,
            )
            done.append(out)
        if fused and state.tangent and len(done) == 1:
            done.append(done[0].clone())
        done = [each.view(count, rows, *outs, columns, *outs) for each in done]
        return done if fused else self._affine(done, state.tangent)

    def _filled(self, state: State, kernel: Tensor) -> Tensor:
        """The kernel with padding that shows other positions."""
        if self.mode == "zeros":
            return kernel
        for axis, (before, after) in enumerate(self.padding):
            for at in (2 + axis, 3 + state.rank + axis) if state.full else (axis,):
                index = _padded(state.space[axis], before, after, self.mode).to(kernel.device)
                kernel = kernel.index_select(at, index)
        return kernel

    def _positions(self, axis: int, side: int, before: int, after: int) -> int:
        """How many there are after the layer."""
        out = (side + before + after - self.dilation[axis] * (self.size[axis] - 1) - 1) // self.stride[axis] + 1
        if out < 1:
            raise InputError(f"a filter of {self.size[axis]} taps is longer than the {side} positions it is given")
        return out

    def _sum(self, state: State, given: Tensor) -> Tensor:
        """The sum over the taps, a new tensor."""
        kernel = self._filled(state, given)
        for axis in range(state.rank):
            at = (2 + axis, 3 + state.rank + axis) if state.full else (axis,)
            before, after = self.padding[axis] if self.mode == "zeros" else (0, 0)
            out = self._positions(axis, kernel.shape[at[0]], before, after)
            kernel = _shifted_sum(kernel, at, out, self.size[axis], self.stride[axis], self.dilation[axis], before)
        return kernel.clone() if kernel is given else kernel


def _shifted_sum(
    kernel: Tensor, axes: Sequence[int], out: int, taps: int, stride: int, dilation: int, before: int
) -> Tensor:
    """Sum over the taps of the entries that every output position sees, on all `axes` by the same shift."""
    side = kernel.shape[axes[0]]
    if taps == 1 and stride == 1 and out == side:
        return kernel
    reach = []
    for tap in range(taps):
        offset = tap * dilation - before  # output j sees input stride j + offset
        low = max(0, -(offset // stride))
        high = min(out, (side - 1 - offset) // stride + 1)
        if high > low:
            reach.append((high - low < out, low, high, offset))
    shape = list(kernel.shape)
    for axis in axes:
        shape[axis] = out
    total: Tensor | None = None
    for _, low, high, offset in sorted(reach):  # a tap that every position has goes first: it saves the zeros
        seen, into = kernel, total
        if total is None and high - low < out:
            total = into = kernel.new_zeros(shape)
        for axis in axes:
            seen = seen[
                (slice(None),) * axis + (slice(low * stride + offset, (high - 1) * stride + offset + 1, stride),)
            ]
            into = None if into is None else into.narrow(axis, low, high - low)
        if into is None:
            total = seen.clone(memory_format=torch.contiguous_format)
        else:
            into.add_(seen)
    return kernel.new_zeros(shape) if total is None else total


def _padded(side: int, before: int, after: int, mode: str) -> Tensor:
    """The position that every position of a padded axis shows."""
    at = torch.arange(-before, side + after)
    if mode == "circular":
        return at % side
    if mode == "replicate":
        return at.clamp(0, side - 1)
    return (side - 1) - ((side - 1) - at.abs()).abs()
