"""Self-attention of which the infinitely wide limit is known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .ntk import NTKLinear


class LinearAttention(nn.Module):
    """Multi-head self-attention without a softmax, from tokens (N, T, features) to tokens (N, T, features).

    `scores="linear"` weighs the values by q.k / sqrt(size) itself. `scores="relu"` has keys that are queries too and
    weighs by relu(k.k' / size) over its sum along the row. For these two the infinitely wide limit has a closed form
    (Hron, Bahri, Sohl-Dickstein and Novak, "Infinite attention", ICML 2020, sections 3.1 and 3.2), which
    `kernels.infinite` knows; for the softmax of `nn.MultiheadAttention` there is none.

    Args:
        features: of a token; a multiple of `heads`.
        heads: how many; `features / heads` is the size of a key. The limit is of many heads of large size.
        scores: "linear" or "relu".
        bias: whether the outputs have a bias; keys, queries and values have none.
        parametrization: "ntk" makes the projections `NTKLinear`.
    """

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        scores: Literal["linear", "relu"] = "linear",
        bias: bool = True,
        parametrization: Literal["standard", "ntk"] = "standard",
    ) -> None:
        super().__init__()
        if min(features, heads) < 1 or features % heads:
            raise InputError(f"features={features} must be a multiple of heads={heads}, both at least 1")
        if scores not in ("linear", "relu") or parametrization not in ("standard", "ntk"):
            raise InputError(
                f'scores must be "linear" or "relu" and parametrization "standard" or "ntk", not {scores!r} and '
                f"{parametrization!r}"
            )

        def linear(with_bias: bool) -> nn.Module:
            if parametrization == "ntk":
                return NTKLinear(features, features)
            return nn.Linear(features, features, bias=with_bias)

        self.features, self.heads, self.scores = features, heads, scores
        self.query = linear(False) if scores == "linear" else None
        self.key, self.value, self.out = linear(False), linear(False), linear(bias)

    def forward(self, x: Tensor) -> Tensor:
        key, value = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.key, self.value))
        if self.query is None:
            weights = torch.relu(key @ key.transpose(-1, -2) / key.shape[-1])
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        else:
            query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            weights = query @ key.transpose(-1, -2) * key.shape[-1] ** -0.5
        return self.out((weights @ value).transpose(1, 2).flatten(2))
