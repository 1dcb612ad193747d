"""What layers that rearrange space do to the kernels: pooling, means, choosing a position, flattening, permuting."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ...core.errors import InputError
from .state import Rule, State


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
