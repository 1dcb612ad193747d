"""What layers that treat every position alike do to the kernels: linear maps, activations, sums, normalization."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import Activation
from ...theory.gaussian.moments import gaussian_moments
from . import compiled
from .state import Rule, State, need_dense


@dataclasses.dataclass(frozen=True)
class Affine:
    """nngp' = w k + b; ntk' = w t + nngp', or in the standard parametrization w t + (inputs / s) k + [bias].

    The second is eq. 11 of Sohl-Dickstein, Novak, Schoenholz and Lee, "On the infinite width limit of neural networks
    with a standard parameterization" (2020).

    Attributes:
        weight: variance of a weight times fan-in.
        bias: variance of a bias.
        inputs: fan-in of the unwidened network; `None` in the NTK parametrization.
        has_bias: whether a bias is trained.
    """

    weight: float
    bias: float
    inputs: float | None = None
    has_bias: bool = False

    def apply_(self, nngp: Tensor, ntk: Tensor | None, tangent: bool) -> tuple[Tensor, Tensor | None]:
        """Both kernels behind the layer, in place."""
        if not tangent:
            return self._covariance_(nngp), None
        if self.inputs is None:
            self._covariance_(nngp)
            return nngp, nngp.clone() if ntk is None else torch.add(nngp, ntk, alpha=self.weight, out=ntk)
        gradient = nngp * self.inputs if ntk is None else ntk.mul_(self.weight).add_(nngp, alpha=self.inputs)
        return self._covariance_(nngp), gradient.add_(1.0) if self.has_bias else gradient

    def _covariance_(self, nngp: Tensor) -> Tensor:
        if self.weight != 1.0:
            nngp.mul_(self.weight)
        return nngp.add_(self.bias) if self.bias else nngp


@dataclasses.dataclass(frozen=True)
class Linear(Rule):
    """A linear map of the last axis, from so many features to so many; any number where `inputs` is `None`."""

    law: Affine
    inputs: int | None
    outputs: int
    what: str
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        need_dense(state, self.what)
        if self.inputs not in (None, state.channels):
            raise InputError(f"takes {self.inputs} features and is given {state.channels}")
        nngp, ntk = self.law.apply_(state.nngp, state.ntk, state.tangent)
        return dataclasses.replace(state, nngp=nngp, ntk=ntk, channels=self.outputs, mixed=False)


@dataclasses.dataclass(frozen=True)
class Activate(Rule):
    """nngp <- g^2 E f(u) f(v), ntk <- g^2 ntk E f'(u) f'(v), for u and v of covariance nngp."""

    act: Activation
    gain: float = 1.0
    needs = "variances"
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        assert own1 is not None and own2 is not None
        if state.mixed:
            raise InputError("an activation of flattened positions: put it before the flatten")
        nngp = state.matrices(state.nngp)
        ntk = None if state.ntk is None else state.matrices(state.ntk)
        step_(self.act, nngp, ntk, state.vectors(own1), state.vectors(own2))
        parts = [each.view(state.nngp.shape) for each in (nngp, ntk) if each is not None]
        if self.gain != 1.0:
            for each in parts:
                each.mul_(self.gain**2)
        return state.with_parts(parts)


def step_(act: Activation, nngp: Tensor, ntk: Tensor | None, q1: Tensor, q2: Tensor) -> None:
    """An activation's step on matrices (S, A, B) with variances (S, A) and (S, B), in place."""
    if act.slopes is not None and act.slopes[0] == act.slopes[1]:
        for each in (nngp, ntk):
            if each is not None:
                each.mul_(act.slopes[0] ** 2)
    elif compiled.suits(nngp) and (act.slopes or act.is_erf):
        if act.slopes:
            compiled.piecewise_step(nngp, ntk, q1, q2, slopes=act.slopes)
        else:
            compiled.erf_step(nngp, ntk, q1, q2)
    elif act.is_erf:
        _erf(nngp, ntk, q1[:, :, None], q2[:, None, :])
    elif act.slopes is not None:
        _piecewise(nngp, ntk, q1[:, :, None], q2[:, None, :], act.slopes)
    elif nngp.shape[1:] == (1, 1) and ntk is None and torch.equal(q1, q2):
        nngp.copy_(gaussian_moments(act, q1, power=2)[:, :, None])
    else:
        a, b = q1.double()[:, :, None], q2.double()[:, None, :]
        limit = (a * b).sqrt_()
        k = torch.minimum(torch.maximum(nngp.double(), -limit), limit)  # rounding must not carry it beyond
        if ntk is not None:
            ntk.mul_(gaussian_moments(act, a, k, b, derivative=True))
        nngp.copy_(gaussian_moments(act, a, k, b))


def _piecewise(nngp: Tensor, ntk: Tensor | None, q1: Tensor, q2: Tensor, slopes: tuple[float, float]) -> None:
    below, above = slopes
    even, odd = ((above + below) / 2) ** 2, ((above - below) / 2) ** 2 * 2 / math.pi
    scale = q1.sqrt() * q2.sqrt()
    c = torch.where(scale > 0, nngp / scale, 0.0).clamp_(-1, 1)
    angle = torch.asin(c)
    if ntk is not None:
        ntk.mul_(angle * odd + even)
    nngp.copy_(scale * (even * c + odd * ((1 - c * c).sqrt_() + c * angle)))


def _erf(nngp: Tensor, ntk: Tensor | None, q1: Tensor, q2: Tensor) -> None:
    root = (1 + 2 * q1).sqrt() * (1 + 2 * q2).sqrt()
    limit = (2 * q1 / (1 + 2 * q1)).sqrt() * (2 * q2 / (1 + 2 * q2)).sqrt()
    c = torch.minimum(torch.maximum(2 * nngp / root, -limit), limit)
    if ntk is not None:
        ntk.mul_(4 / math.pi / (root * (1 - c * c).sqrt_()))
    nngp.copy_(torch.asin(c).mul_(2 / math.pi))


@dataclasses.dataclass(frozen=True)
class Scale(Rule):
    """Multiplication by a number."""

    factor: float
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        return states[0].with_parts([each.mul_(self.factor**2) for each in states[0].parts()])


@dataclasses.dataclass(frozen=True)
class Add(Rule):
    """The sum of branches whose outputs are uncorrelated: kernels add."""

    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        first, second = states
        if (first.channels, first.space) != (second.channels, second.space):
            raise InputError(
                f"adds outputs of {_shape(first)} and {_shape(second)}: only branches of one shape have a known sum"
            )
        nngp = first.nngp.add_(second.nngp)
        ntk = second.ntk if first.ntk is None else first.ntk if second.ntk is None else first.ntk.add_(second.ntk)
        return dataclasses.replace(first, nngp=nngp, ntk=ntk)


@dataclasses.dataclass(frozen=True)
class Concatenate(Rule):
    """Features side by side: the mean of the kernels, weighted by how many features each brings."""

    axis: int
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        first = states[0]
        features = first.rank + 1 if first.last or not first.space else 1
        if self.axis % (first.rank + 2) != features or any(each.space != first.space for each in states):
            raise InputError("concatenates along another axis than the features: that limit is not known")
        total = sum(each.channels for each in states)
        nngp: Tensor | None = None
        ntk: Tensor | None = None
        for state in states:
            share = state.channels / total
            nngp = state.nngp.mul_(share) if nngp is None else nngp.add_(state.nngp, alpha=share)
            if state.ntk is not None:
                ntk = state.ntk.mul_(share) if ntk is None else ntk.add_(state.ntk, alpha=share)
        assert nngp is not None
        return dataclasses.replace(first, nngp=nngp, ntk=ntk, channels=total)


@dataclasses.dataclass(frozen=True)
class Normalize(Rule):
    """Layer or root-mean-square normalization over the features: both kernels over sqrt((q1 + eps) (q2 + eps)).

    Attributes:
        eps: added to the variance.
        axes: how many of the last axes are normalized over; `None` for features and all of space.
        centers: whether the mean is taken off, which is zero behind linear layers.
    """

    eps: float
    axes: int | None
    centers: bool
    needs = "variances"
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        assert own1 is not None and own2 is not None
        over = tuple(range(1, state.rank + 1)) if self.axes is None else self._space(state)
        sides = []
        for own in (own1, own2):
            mean = own.mean(over, keepdim=True).expand_as(own) if over else own
            sides.append(state.vectors(torch.where(mean + self.eps > 0, (mean + self.eps).rsqrt(), 0.0)))
        parts = [state.matrices(each) for each in state.parts()]
        for each in parts:
            each.mul_(sides[0][:, :, None]).mul_(sides[1][:, None, :])
        return state.with_parts([each.view(state.nngp.shape) for each in parts])

    def _space(self, state: State) -> tuple[int, ...]:
        """The axes of (n, *space) among the last `axes` of the layer's output."""
        assert self.axes is not None
        if state.last or not state.space:
            return tuple(range(state.rank + 2 - self.axes, state.rank + 1))
        if self.axes <= state.rank:
            raise InputError("normalizes over space without the features: that limit is not known")
        return tuple(range(1, state.rank + 1))


@dataclasses.dataclass(frozen=True)
class Dropout(Rule):
    """Independent noise: what is an example's own grows by 1 / (share kept)."""

    keep: float
    in_place = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        (state,) = states
        if not state.same:
            return state
        parts = [state.matrices(each) for each in state.parts()]
        for each in parts:
            each.diagonal(dim1=1, dim2=2).div_(self.keep)
        return state.with_parts([each.view(state.nngp.shape) for each in parts])


def embed(
    tokens1: Tensor, tokens2: Tensor | None, *, channels: int, variance: float, unit: float, ignored: int | None,
    full: bool, tangent: bool, same: bool, dtype: torch.dtype,
) -> State:  # fmt: skip
    """The state behind an embedding: equal tokens share a vector, different ones have independent vectors.

    Args:
        tokens1: (n1, *space) whole numbers.
        tokens2: (n2, *space); `None` for every example of `tokens1` with itself.
        channels: size of a vector.
        variance: of its entries.
        unit: what two equal tokens add to the ntk.
        ignored: a token whose vector is fixed at zero.
        full, tangent, same, dtype: as in `lift`.
    """
    space = tuple(tokens1.shape[1:])
    points, rank = math.prod(space), len(space)
    first, second = tokens1.long(), tokens1.long() if tokens2 is None else tokens2.long()
    if full and space and tokens2 is None:
        flat = first.reshape(len(first), points)
        equal = flat[:, :, None] == flat[:, None, :]
        if ignored is not None:
            equal &= (flat != ignored)[:, :, None]
        nngp = equal.reshape(len(first), 1, *space, 1, *space)
    elif full and space:
        flat, other = first.reshape(-1), second.reshape(-1)
        equal = flat[:, None] == other
        if ignored is not None:
            equal &= (flat != ignored)[:, None]
        nngp = equal.reshape(1, len(first), *space, len(second), *space)
    else:
        places = first.movedim(0, -1)
        known = places != ignored if ignored is not None else torch.ones_like(places, dtype=torch.bool)
        if tokens2 is None:
            nngp = known[..., None, None]
        else:
            nngp = ((places[..., :, None] == second.movedim(0, -1)[..., None, :]) & known[..., None]).unsqueeze(rank)
    kernel = nngp.to(dtype)
    ntk = kernel * unit if tangent else None
    return State(kernel * variance, ntk, channels, space, True, full and bool(space), tangent, same)


def _shape(state: State) -> str:
    return f"{state.channels} features" + (f" on {'x'.join(map(str, state.space))}" if state.space else "")
