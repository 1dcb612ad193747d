"""Sequences of any lengths as one list of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of all sequences, one after the other.

    Attributes:
        gram: (n, n) inner products of tokens over their number of features, in float64.
        step: (n,) place of each in its sequence, from 0.
        lengths: of the sequences.
    """

    gram: Tensor
    step: Tensor
    lengths: list[int]

    @property
    def last(self) -> Tensor:
        """The places of each sequence's last token."""
        return torch.tensor(self.lengths, device=self.step.device).cumsum(0) - 1

    def sequences(self) -> list[range]:
        """The places of each sequence's tokens."""
        ends = self.last.tolist()
        return [range(end + 1 - length, end + 1) for end, length in zip(ends, self.lengths, strict=True)]


def stacked(tokens: Tensor | Sequence[Tensor]) -> Tokens:
    """One sequence (T, d), several of one length (N, T, d), or a list of sequences (T, d) of any lengths.

    Raises:
        InputError: no tokens, sequences of other shapes or of different numbers of features, or a token that is not
            finite.
    """
    parts = ([tokens] if tokens.ndim == 2 else list(tokens)) if isinstance(tokens, Tensor) else list(tokens)
    shapes = [tuple(part.shape) for part in parts]
    if not parts or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise InputError(f"sequences of tokens are needed, each of shape (steps, features); there are {shapes}")
    if len({shape[1] for shape in shapes}) > 1:
        raise InputError(f"tokens of all sequences need the same number of features; shapes are {shapes}")
    x = torch.cat([part.detach().double() for part in parts])
    if not x.isfinite().all():
        raise InputError("a token is not finite")
    step = torch.cat([torch.arange(len(part), device=x.device) for part in parts])
    return Tokens(x @ x.T / x.shape[1], step, [len(part) for part in parts])
