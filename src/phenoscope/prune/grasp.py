"""GraSP: keep, before any training, the weights that the flow of the gradient depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.guard import unchanged
from ..data.batches import Data, batches
from ..landscape.products import hvp, loss_gradient
from ..models.masks import Masks, prunable
from .scores import keep_top
from .snip import batch_statistics, sample_size


def grasp(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    density: float,
    temperature: float = 200.0,
    batch_size: int | None = None,
    generator: torch.Generator | int | None = None,
) -> Masks:
    """Keep the weights whose removal would take most from the gradient (Wang, Zhang and Grosse, ICLR 2020).

    Those of the smallest scores of `grasp_scores`, most of them negative; the paper's algorithm 1, which ranks all
    layers together. A layer of which nothing is kept is named in `Masks.collapsed`; it is not repaired.

    Args:
        model: a network that has not been trained; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: one batch `(x, y)`, ten examples of each class, say; or a loader whose batches count together.
        density: the share of weights to keep.
        temperature: divides the outputs before the loss; the paper's 200 keeps softmax flat. 1 for other losses than
            cross-entropy.
        batch_size: examples at a time, where memory is short; batch norm then sees these as its batches.
        generator: unused, since nothing is drawn; every scorer takes one.

    Raises:
        InputError: a density or a temperature out of range, or what `grasp_scores` refuses.
    """
    if not 0 < density <= 1:
        raise InputError(f"density is the share of weights to keep, above 0 and at most 1, not {density!r}")
    scores = grasp_scores(model, loss_fn, data, temperature=temperature, batch_size=batch_size)
    return keep_top({name: -score for name, score in scores.items()}, density=density)


def grasp_scores(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    temperature: float = 200.0,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """What the removal of each prunable weight does to the gradient: S = -w * H g, elementwise, with its sign.

    g and H are the gradient and the Hessian of the mean loss over all of the data, outputs divided by the temperature,
    with respect to the prunable weights (Wang, Zhang and Grosse, ICLR 2020, equations 7 and 8). To first order the
    squared norm of the gradient changes by 2 S_q when weight q goes to zero: weights of large positive S stand in the
    way of the gradient, those of large negative S carry it. Batch norm works with the batch's own statistics, as in
    training; everything else (dropout) is in evaluation mode, so that nothing is drawn.

    Args:
        model: the network; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: a batch `(x, y)`, or a loader of such batches.
        temperature: divides the outputs before the loss.
        batch_size: examples at a time, where memory is short; batch norm then sees these as its batches.

    Returns:
        Parameter name -> scores of the parameter's shape.

    Raises:
        InputError: a temperature that is not positive, scores that are not finite or all zero, a network without
            weights to prune, or data that `batches` refuses.
    """
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature divides the outputs and is positive, not {temperature!r}")
    weights = prunable(model)
    raw = {id(parameter): name for name, parameter in model.named_parameters()}  # torch.compile prefixes its names
    names = {name: raw[id(weight)] for name, weight in weights.items()}
    size = sample_size(data, batch_size)
    parts = list(batches(data, size))  # gone through twice

    def flattened(outputs: Any, y: Any) -> Tensor:
        return loss_fn(outputs / temperature, y)

    with unchanged(model), batch_statistics(model), _trainable(weights):
        slope = loss_gradient(model, flattened, parts, names=dict.fromkeys(names.values()), chunk=size)
        curved = hvp(model, flattened, parts, slope, chunk=size)
    scores = {name: -weights[name].detach() * curved[at] for name, at in names.items()}
    largest = max(float(score.abs().max()) for score in scores.values())
    if not all(bool(score.isfinite().all()) for score in scores.values()):
        raise InputError("the curvature of the loss is not finite: check the initialization and the data")
    if largest == 0:
        raise InputError("no weight changes the gradient of the loss: its curvature along the gradient is zero")
    return scores


@contextmanager
def _trainable(weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Frozen weights can be pruned, too."""
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
