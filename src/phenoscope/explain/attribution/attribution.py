"""An attribution that is meant to add up, and by how much it misses."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """What every part of an input contributes to the change of a score.

    Attributes:
        values: (N, ...) contributions, of the shape of the input.
        change: (N,) F(x) - F(x0), of the score that is explained.
        gap: (N,) sum of a row of `values` minus `change`; 0 is complete.
    """

    values: Tensor
    change: Tensor
    gap: Tensor

    @property
    def relative_gap(self) -> Tensor:
        """(N,) |gap| / |change|; NaN where nothing changed and nothing was attributed."""
        return self.gap.abs() / self.change.abs()
