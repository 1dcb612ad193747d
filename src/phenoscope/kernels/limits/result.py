"""What a limit's kernels come back as."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class LimitKernels:
    """Kernels (n1, n2) of every output: `nngp`, its covariance at the start; `ntk`, the product of its gradients."""

    nngp: Tensor
    ntk: Tensor
