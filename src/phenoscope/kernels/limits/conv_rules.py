"""What layers that act on space do to the kernels: convolution, pooling, flattening."""

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


@dataclasses.dataclass(frozen=True)
class Pool(Rule):
    """Averages over windows, of both examples' positions.

    Attributes:
        size: of a window, an axis each; `None` where `target` says how many there are.
        stride, padding, ceil, count_pad, divisor: as of `nn.AvgPool2d`.
        target: of adaptive pooling: positions left, an axis each; `None` leaves it as it is.
    """

    size: tuple[int, ...] | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    ceil: bool = False
    count_pad: bool = True
    divisor: int | None = None
    target: tuple[int | None, ...] | None = None
    pairs = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        given = self.target if self.size is None else self.size
        assert given is not None
        if (state.last and state.space) or state.rank != len(given):
            raise InputError(f"pools over {len(given)} axes but was given {state.rank} axes of space")
        matrices = [self._windows(axis, side) for axis, side in enumerate(state.space)]
        parts = state.parts()
        for axis, matrix in enumerate(matrices):
            weights = matrix.to(parts[0])
            if len(matrix) == 1 and (matrix == matrix[0, 0]).all():
                both = (2 + axis, 3 + state.rank + axis)
                parts = [each.sum(both, keepdim=True).mul_(float(matrix[0, 0]) ** 2) for each in parts]
                continue
            for at in (2 + axis, 3 + state.rank + axis):
                parts = [torch.tensordot(each, weights, ([at], [1])).movedim(-1, at) for each in parts]
        if self.divisor is not None:
            assert self.size is not None
            parts = [each.mul_((math.prod(self.size) / self.divisor) ** 2) for each in parts]
        return state.with_parts([each.contiguous() for each in parts], space=tuple(len(each) for each in matrices))

    def _windows(self, axis: int, side: int) -> Tensor:
        if self.size is None:
            assert self.target is not None
            out = self.target[axis] or side
            edges = [(j * side // out, -(-(j + 1) * side // out)) for j in range(out)]
            return torch.stack([_window(side, low, high, high - low) for low, high in edges])
        size, stride, pad = self.size[axis], self.stride[axis], self.padding[axis]
        room = side + 2 * pad - size
        out = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (out - 1) * stride >= side + pad:
            out -= 1
        rows = []
        for start in (j * stride - pad for j in range(out)):
            end = min(start + size, side + pad)
            low, high = max(start, 0), min(end, side)
            divide = size if self.divisor is not None else end - start if self.count_pad else high - low
            rows.append(_window(side, low, high, divide))
        if not rows:
            raise InputError(f"a window of {size} positions is longer than the {side} that it is given")
        return torch.stack(rows)


def _window(side: int, low: int, high: int, count: int) -> Tensor:
    row = torch.zeros(side, dtype=torch.float64)
    row[low:high] = 1 / count
    return row


@dataclasses.dataclass(frozen=True)
class Mean(Rule):
    """The mean over axes of space, of both examples' positions.

    Attributes:
        axes: as torch counts them, with the batch.
        keep: whether they stay, with one position.
        alone: whether they must have one position only, as for a squeeze.
    """

    axes: tuple[int, ...]
    keep: bool = False
    alone: bool = False
    pairs = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        over = [_axis_of_space(state, axis) for axis in self.axes]
        if self.alone:
            over = [axis for axis in over if state.space[axis] == 1]
        at = [2 + axis for axis in over] + [3 + state.rank + axis for axis in over]
        parts = [each.mean(at, keepdim=self.keep) if at else each for each in state.parts()]
        space = [1 if axis in over else side for axis, side in enumerate(state.space)]
        if not self.keep:
            space = [side for axis, side in enumerate(space) if axis not in over]
        return state.with_parts(parts, space=tuple(space), full=bool(space))


@dataclasses.dataclass(frozen=True)
class Select(Rule):
    """One position of some axes of space, as in `x[:, 0]`: `None` keeps an axis whole; from the batch's axis on."""

    index: tuple[int | None, ...]

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        chosen = {_axis_of_space(state, axis): at for axis, at in enumerate(self.index) if at is not None}
        places = list(chosen)
        if state.full:
            places = [2 + axis for axis in chosen] + [3 + state.rank + axis for axis in chosen]
        at = list(chosen.values()) * (2 if state.full else 1)
        parts = state.parts()
        for place, position in sorted(zip(places, at, strict=True), reverse=True):  # the axes before it stay
            parts = [each.select(place, position) for each in parts]
        space = tuple(side for axis, side in enumerate(state.space) if axis not in chosen)
        return state.with_parts([each.contiguous() for each in parts], space=space, full=state.full and bool(space))


@dataclasses.dataclass(frozen=True)
class Flatten(Rule):
    """Positions become features: the mean over every position with itself; or, where features stay, one axis.

    Attributes:
        start, end: the axes, as torch counts them.
    """

    start: int = 1
    end: int = -1

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        axes = state.rank + 2
        start, end = self.start % axes, self.end % axes
        features = axes - 1 if state.last or not state.space else 1
        if start == end:
            return state
        if (start, end) == (1, axes - 1):
            points = math.prod(state.space)
            cut = state.spatial_diagonal()
            parts = [each.mean(tuple(range(state.rank))) for each in cut.parts()]
            return cut.with_parts(parts, space=(), channels=state.channels * points, mixed=points > 1)
        if start < 1 or start <= features <= end:
            raise InputError("flattens the batch, or features with a part of space: that limit is not known")
        first, last = (axis - (1 if state.last else 2) for axis in (start, end))
        space = (*state.space[:first], math.prod(state.space[first : last + 1]), *state.space[last + 1 :])
        kernels = []
        for each in state.parts():
            count, rows, columns = each.shape[0], each.shape[1], each.shape[2 + state.rank]
            shape = (count, rows, *space, columns, *space) if state.full else (*space, *each.shape[-3:])
            kernels.append(each.reshape(shape))
        return state.with_parts(kernels, space=space)


@dataclasses.dataclass(frozen=True)
class Permute(Rule):
    """Features move to the front or to the end; the axes of space keep their order."""

    order: tuple[int, ...] | None
    swap: tuple[int, int] = (0, 0)

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        axes = state.rank + 2
        order = list(range(axes))
        if self.order is None:
            a, b = (axis % axes for axis in self.swap)
            order[a], order[b] = order[b], order[a]
        else:
            order = [axis % axes for axis in self.order]
        features = axes - 1 if state.last or not state.space else 1
        rest = [axis for axis in order if axis not in (0, features)]
        if len(order) != axes or order[0] != 0 or rest != sorted(rest) or order.index(features) not in (1, axes - 1):
            raise InputError("permutes axes of space: only features may move, behind the batch or to the end")
        return dataclasses.replace(state, last=order.index(features) == axes - 1)


def _axis_of_space(state: State, axis: int) -> int:
    """Which axis of space an axis of the layer's output is."""
    axes = state.rank + 2
    axis %= axes
    features = axes - 1 if state.last or not state.space else 1
    if axis in (0, features):
        raise InputError("acts along the batch or the features, not over space: that limit is not known")
    return axis - (1 if state.last else 2)
