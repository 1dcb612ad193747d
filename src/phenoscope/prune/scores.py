"""Keep exactly as many weights as asked for: those of the highest scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import InputError
from ..models.masks import Masks

Scope = Literal["global", "layer"]


def keep_top(
    scores: Mapping[str, Tensor],
    *,
    density: float | Mapping[str, float],
    scope: Scope = "global",
    within: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Keep the share `density` of the weights, those of the highest scores: exactly round(density x weights) of them.

    Of equal scores those come first that come first in the mapping and in their tensor (a stable sort), so that the
    choice is the same on every machine.

    Args:
        scores: parameter name -> a score for each weight.
        density: the share to keep; with `scope="layer"` it may be one by parameter name.
        scope: whether all weights compete with each other, or only those of one parameter.
        within: masks; what they do not keep is never kept. The share is still one of all weights.

    Returns:
        Masks of the same names and shapes.

    Raises:
        InputError: a share outside [0, 1] or larger than what `within` keeps, scores that are NaN, or names or shapes
            that do not agree.

    Examples:
        >>> scores = {"a": torch.tensor([[3.0, 1.0]]), "b": torch.tensor([[2.0, 0.5]])}
        >>> keep_top(scores, density=0.5).counts
        {'a': 1, 'b': 1}
    """
    if not scores:
        raise InputError("there are no scores to choose by")
    if scope not in ("global", "layer"):
        raise InputError(f"scope must be 'global' or 'layer', not {scope!r}")
    for name, score in scores.items():
        if bool(score.isnan().any()):
            raise InputError(f"{int(score.isnan().sum())} scores of {name!r} are NaN")
        if within is not None and (name not in within or within[name].shape != score.shape):
            raise InputError(f"within= has no mask of shape {tuple(score.shape)} for {name!r}")
    if isinstance(density, Mapping) and (scope != "layer" or set(density) != set(scores)):
        raise InputError("densities by name need scope='layer' and one for each parameter that has scores")
    if scope == "layer":
        shares = density if isinstance(density, Mapping) else dict.fromkeys(scores, density)
        return Masks({name: _kept({name: score}, shares[name], within)[name] for name, score in scores.items()})
    assert not isinstance(density, Mapping)
    return Masks(_kept(scores, density, within))


def _kept(scores: Mapping[str, Tensor], density: float, within: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if not 0 <= density <= 1 or math.isnan(density):
        raise InputError(f"density is a share from 0 to 1, not {density!r}")
    device = next(iter(scores.values())).device
    flat = torch.cat([score.detach().reshape(-1).to(device) for score in scores.values()])
    count = round(density * len(flat))
    if within is None:
        order = torch.argsort(flat, descending=True, stable=True)
    else:  # only what is open is sorted
        open_ = torch.cat([within[name].reshape(-1).to(device).bool() for name in scores]).nonzero()[:, 0]
        if count > len(open_):
            raise InputError(f"density {density:.4g} asks for {count} weights, but within= leaves only {len(open_)}")
        order = open_[torch.argsort(flat[open_], descending=True, stable=True)]
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=device)
    chosen[order[:count]] = True
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
