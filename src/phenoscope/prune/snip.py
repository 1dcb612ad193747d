"""SNIP: keep, before any training, the connections that the loss is most sensitive to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..core.errors import InputError
from ..core.guard import unchanged
from ..core.parameters import call
from ..data.batches import Data, batches
from ..models.masks import Masks, prunable
from .scores import Scope, keep_top


def snip(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    density: float,
    scope: Scope = "global",
    rounds: int = 1,
    batch_size: int | None = None,
    generator: torch.Generator | int | None = None,
) -> Masks:
    """Keep the weights of the largest connection sensitivity (Lee, Ajanthan and Torr, ICLR 2019, algorithm 1).

    The scores are those of `snip_scores`, which depend on how the layers are scaled against each other: initialize
    them so that variance is kept (He, Glorot). A layer of which nothing is kept is named in `Masks.collapsed`; it is
    not repaired.

    Args:
        model: a network that has not been trained; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: one batch `(x, y)`, ten examples of each class, say; or a loader whose batches count together.
        density: the share of weights to keep.
        scope: whether all weights compete with each other, as in the paper, or only those of one layer.
        rounds: 1 is the paper's single shot; with more the density falls exponentially, and the network that is left
            is scored again every time (de Jorge et al., "Progressive Skeletonization", ICLR 2021).
        batch_size: examples at a time, where memory is short; batch norm then sees these as its batches.
        generator: unused, since nothing is drawn; every scorer takes one.

    Raises:
        InputError: `rounds` below 1, a loss that is not finite or that no weight changes, a network without weights to
            prune, or what `keep_top` and `batches` refuse.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, not {rounds}")
    if not 0 < density <= 1:
        raise InputError(f"density is the share of weights to keep, above 0 and at most 1, not {density!r}")
    if rounds > 1:
        data = list(batches(data, sample_size(data, batch_size)))  # gone through once a round
    masks: Masks | None = None
    for number in range(1, rounds + 1):
        scores = snip_scores(model, loss_fn, data, masks=masks, batch_size=batch_size)
        masks = keep_top(scores, density=density ** (number / rounds), scope=scope, within=masks)
    assert masks is not None
    return masks


def snip_scores(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """The connection sensitivity of every prunable weight: |w_q dL/dw_q|, divided by its sum over the network.

    A switch c_q multiplies each weight; the score is the size of dL/dc_q where all switches are on (Lee, Ajanthan and
    Torr, ICLR 2019, equations 4 to 6). L is the mean loss over all of the data: signed derivatives of several batches
    are added before the absolute value is taken. Batch norm works with the batch's own statistics, as in training;
    everything else (dropout) is in evaluation mode, so that nothing is drawn.

    Args:
        model: the network; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: a batch `(x, y)`, or a loader of such batches.
        masks: weights that are off already; their score is 0.
        batch_size: examples at a time, where memory is short; batch norm then sees these as its batches.

    Returns:
        Parameter name -> scores of the parameter's shape; they sum to 1.

    Raises:
        InputError: a loss that is not finite or that no weight changes, masks of other shapes, a network without
            weights to prune, or data that `batches` refuses.
    """
    signed = signed_sensitivity(model, loss_fn, data, masks=masks, batch_size=batch_size)
    total = torch.stack([score.abs().sum(dtype=torch.float64) for score in signed.values()]).sum()
    if not bool(total.isfinite()):
        raise InputError("the derivative of the loss is not finite: check the initialization and the data")
    if not bool(total > 0):
        raise InputError("no weight changes the loss: its derivative is zero everywhere")
    return {name: (score.abs() / total).to(score.dtype) for name, score in signed.items()}


def signed_sensitivity(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    masks: Mapping[str, Tensor] | None,
    batch_size: int | None,
) -> dict[str, Tensor]:
    """dL/dc_q = w_q dL/dw_q of the mean loss over all of the data."""
    names = prunable(model)
    weights = {name: weight.detach().clone() for name, weight in names.items()}
    if masks is not None:
        for name, (_, mask) in Masks(masks).within(model).items():
            if name in weights:
                weights[name].masked_fill_(~mask, 0)
    for weight in weights.values():
        weight.requires_grad_()
    raw = {id(parameter): name for name, parameter in model.named_parameters()}  # torch.compile prefixes its names
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    place = next(iter(weights.values()))
    with unchanged(model), batch_statistics(model), torch.enable_grad():
        for x, y in batches(data, sample_size(data, batch_size)):
            x = x.to(place.device, place.dtype if x.is_floating_point() else x.dtype)
            outputs = call(model, {raw[id(names[name])]: weight for name, weight in weights.items()}, x)
            loss = loss_fn(outputs, y.to(place.device))
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    sums[name] += len(x) * gradient
            count += len(x)
    if count == 0:
        raise InputError("the loader gave no batches to score connections on")
    return {name: weights[name].detach() * total / count for name, total in sums.items()}


def sample_size(data: Data, batch_size: int | None) -> int:
    """All examples of a pair of tensors at once, if nothing else was asked for."""
    if batch_size is not None:
        return batch_size
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor)
    return max(1, len(data[0])) if pair and data[0].ndim else 1  # type: ignore[index]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, but batch norms normalize by the batch; `unchanged` around it puts modes and buffers back."""
    model.eval()
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.train()
    yield
