"""What attention without a softmax does to the kernels."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...core.errors import InputError
from .state import Rule, State

_NOTHING = 1e-30  # a row whose weights are all zero stays so


@dataclasses.dataclass(frozen=True)
class LinearAttention(Rule):
    """Scores of independent queries and keys over sqrt(size), taken as they are, with infinitely many heads.

    With a = sigma_query2 sigma_key2 sigma_value2 sigma_out2 and the sum over all pairs of positions of two examples,
    nngp' = a nngp sum(nngp^2) + b, ntk' = a (2 nngp sum(nngp ntk) + sum(nngp^2) (ntk + 4 nngp)) + b (Hron, Bahri,
    Sohl-Dickstein and Novak, "Infinite attention: NNGP and NTK for deep attention networks", ICML 2020, section 3).

    Attributes:
        scale: a.
        bias: variance of the output's bias.
        outputs: features of a token.
    """

    scale: float
    bias: float
    outputs: int
    pairs = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        state = _tokens(states)
        over = [2, 4]
        k, t = state.nngp, state.ntk
        squares = k.square().sum(over, keepdim=True)
        nngp = (squares * k).mul_(self.scale)
        if not state.tangent:
            ntk = None
        else:
            ntk = 4 * nngp
            if t is not None:
                ntk += self.scale * (2 * (k * t).sum(over, keepdim=True) * k + squares * t)
        parts = [each.add_(self.bias) for each in (nngp, ntk) if each is not None]
        return state.with_parts(parts, channels=self.outputs)


@dataclasses.dataclass(frozen=True)
class ReLUAttention(Rule):
    """Scores of one key with another over their size, cut at zero and divided by their sum over a row.

    The scores of infinitely many features are the layer's own covariance, so the weights G of an example are not
    random: nngp' = a G1 nngp G2^T + b, ntk' = a G1 ntk G2^T + 2 (nngp' - b) + b, with a = sigma_value2 sigma_out2
    (Hron et al., 2020, section 3.2, the scaling 1 / size with keys and queries tied).

    Attributes:
        scale: a.
        bias: variance of the output's bias.
        outputs: features of a token.
    """

    scale: float
    bias: float
    outputs: int
    needs = "covariance"
    pairs = True

    def __call__(self, states: list[State], own1: Tensor | None, own2: Tensor | None) -> State:
        state = _tokens(states)
        assert own1 is not None and own2 is not None
        alone = state.nngp.shape[0] > 1  # every example with itself
        left, right = (_weights(each)[:, None] if alone else _weights(each)[None] for each in (own1, own2))
        parts = [
            torch.einsum("snia,snamb,smjb->snimj", left, each, right).mul_(self.scale) for each in state.parts()
        ]  # fmt: skip
        if state.tangent:
            parts = [parts[0], parts[1].add_(parts[0], alpha=2) if len(parts) > 1 else 2 * parts[0]]
        return state.with_parts([each.add_(self.bias) for each in parts], channels=self.outputs)


def _weights(own: Tensor) -> Tensor:
    positive = own.clamp_min(0)
    return positive / positive.sum(-1, keepdim=True).clamp_min(_NOTHING)


def _tokens(states: list[State]) -> State:
    (state,) = states
    if state.rank != 1 or not state.last:
        raise InputError("attention takes tokens (N, T, features)")
    return state
