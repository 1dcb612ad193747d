"""The tangent kernel column by column: a gradient, then the change of all outputs along it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.gradients import jvp
from ...core.parameters import call, parameter_dict
from ...core.taps import suited
from .blocks import Blocks


class Products(Blocks):
    """Blocks whose columns are Theta v = J (J^T v) for unit vectors v: one pass back, one forward with derivatives.

    Args:
        model: a network.
        x1, x2: inputs; `x2` is `None` for a symmetric kernel.
        chosen: outputs.
        full: whether they are kept apart; otherwise the mean of their kernels is made.
        block: examples of either side in a block.

    Raises:
        InputError: on a call, for a network with an operation that has no forward mode.
    """

    def __init__(self, model: nn.Module, x1: Tensor, x2: Tensor | None, chosen: range, full: bool, block: int) -> None:
        self.model, self.chosen, self.values = model, chosen, parameter_dict(model)
        dtype = next(iter(self.values.values())).dtype
        super().__init__(x1, x2, block, dtype, (len(chosen),) * 2 if full else ())

    def __call__(self, i: int, j: int) -> Tensor:
        x = suited(self.model, self.x1[self.rows(i)])
        others = suited(self.model, (self.x1 if self.x2 is None else self.x2)[self.rows(j)])
        some = slice(self.chosen.start, self.chosen.stop)

        def outputs(parameters: dict[str, Tensor]) -> Tensor:
            return call(self.model, parameters, x).reshape(len(x), -1)[:, some]

        try:
            columns = [
                jvp(outputs, self.values, self._gradient(one, number))[1].detach()
                for one in others.split(1)
                for number in self.chosen
            ]
        except NotImplementedError as error:
            raise InputError(f"torch has no derivatives in forward mode for this network: {error}") from error
        found = torch.stack(columns, -1).view(len(x), len(self.chosen), len(others), len(self.chosen))
        return found.transpose(1, 2) if self.shape else found.diagonal(dim1=1, dim2=3).mean(-1)

    def _gradient(self, one: Tensor, number: int) -> dict[str, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in self.values.items()}
        with torch.enable_grad():
            out = call(self.model, leaves, one).reshape(-1)[number]
            if not out.requires_grad:
                return {name: torch.zeros_like(value) for name, value in leaves.items()}
            found = torch.autograd.grad(out, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, found, strict=True))
