"""Blocks of the Gram matrix of a network's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.taps import rows_at_once, suited
from .blocks import Blocks


class Features(Blocks):
    """Blocks of h(x_i) . h(x_j) / n.

    Args:
        model: the network.
        module: of it, what gives h, or takes it in.
        take_input: whether h is what the module takes in.
        x1, x2: inputs; `x2` is `None` for a symmetric kernel.
        memory: bytes that the features of both sides may take.
    """

    def __init__(
        self, model: nn.Module, module: nn.Module, take_input: bool, x1: Tensor, x2: Tensor | None, memory: int
    ) -> None:
        self.model, self.module, self.take_input = model, module, take_input
        one = self._features(x1[:1])
        largest = max(len(x1), 0 if x2 is None else len(x2))
        block = min(largest, max(1, memory // (2 * one.shape[1] * one.element_size())))
        super().__init__(x1, x2, block, one.dtype, ())
        self._row: tuple[slice, Tensor] | None = None

    def __call__(self, i: int, j: int) -> Tensor:
        if self._row is None or self._row[0] != self.rows(i):
            self._row = None
            self._row = self.rows(i), self._features(self.x1[self.rows(i)])
        a = self._row[1]
        symmetric = self.x2 is None and i == j
        b = a if symmetric else self._features((self.x1 if self.x2 is None else self.x2)[self.rows(j)])
        return a @ b.T / a.shape[1]

    def _features(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self.module.register_forward_hook(
            lambda _, inputs, out: seen.append((inputs[0] if self.take_input else out).flatten(1).clone())
        )
        try:
            with unchanged(self.model), torch.no_grad():
                self.model.eval()
                for count, rows in enumerate(x.split(rows_at_once(x)), start=1):
                    self.model(suited(self.model, rows))
                    if len(seen) != count:
                        raise InputError("the network must use this layer once in a pass")
        finally:
            hook.remove()
        return torch.cat(seen)
