"""Keep the largest weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..models.masks import Masks, prunable
from .scores import Scope, keep_top


def one_shot(
    model: nn.Module,
    *,
    density: float | Mapping[str, float],
    scope: Scope = "global",
    within: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Keep the weights of the largest magnitude |w|, all at once.

    Of a trained network this is magnitude pruning (Han, Pool, Tran and Dally, NeurIPS 2015), at initialization a
    baseline of pruning before training. `imp` repeats it with training between.

    Args:
        model: the network; left as it was found.
        density: the share to keep; with `scope="layer"` it may be one by parameter name.
        scope: whether all weights compete with each other, or only those of one layer.
        within: masks; what they do not keep is never kept. The share is still one of all weights.

    Raises:
        InputError: as `keep_top` does, or a network without weights to prune.
    """
    scores = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    return keep_top(scores, density=density, scope=scope, within=within)
