"""One architecture at many points of weight space: error and loss of each."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..data.batches import Data, batches
from ..train.outputs import in_mode, placed
from ..train.program import Program
from ..train.statistics import batch_norms, refresh_statistics_
from .products import Loss

_BYTES = 2**28  # of the weights of points that are looked at together
_ACTIVATION_BYTES = 2**26  # of what they compute at once
_BATCH = 256

Stacked = Mapping[str, Tensor]


def measured(
    model: nn.Module, points: Iterable[Stacked], parts: Sequence[Data], *, loss_fn: Loss, refresh: Data | None
) -> Tensor:
    """Error and mean loss at points, in evaluation mode.

    Args:
        model: the architecture; what a point does not mention is as in this network, which stays as it is.
        points: parameters and buffers by name, (points, ...), some points at a time.
        parts: data to measure on.
        loss_fn: from outputs and labels to their mean loss.
        refresh: what batch-norm statistics are recomputed on at every point; `None` leaves them.

    Returns:
        (2, parts, points) in double precision: the share of wrong decisions, NaN where labels are not classes, and the
        loss.
    """
    template = copy.deepcopy(model)
    program = Program(template)
    found = []
    for some in points:
        own = {name: value.detach().clone() for name, value in some.items()}
        if refresh is not None and has_statistics(template):
            _refresh(template, own, refresh)
        each = [torch.stack(_measured_together(program, template, own, part, loss_fn)) for part in parts]
        found.append(torch.stack(each, 1))
    return torch.cat(found, 2)


def at_once(model: nn.Module) -> int:
    """For how many points the weights fit into a few hundred megabytes."""
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return max(1, _BYTES // max(size, 1))


def has_statistics(model: nn.Module) -> bool:
    """Whether the network has batch normalization with running statistics."""
    return bool(batch_norms(model))


def _measured_together(
    program: Program, template: nn.Module, points: Stacked, data: Data, loss_fn: Loss
) -> tuple[Tensor, Tensor]:
    count = len(next(iter(points.values())))
    wrong = torch.zeros(count, dtype=torch.float64)
    loss = torch.zeros(count, dtype=torch.float64)
    total, decided, together = 0, 0, 0
    with in_mode(program.network, training=False), in_mode(template, training=False), torch.no_grad():
        for x, y in batches(data, _BATCH):
            x, y = placed(x, y, template)
            if program.steps is not None and not together:
                together = max(1, _ACTIVATION_BYTES // program.activation_bytes(x))
            outputs = _outputs(program, template, points, x, together)
            loss += len(x) * torch.stack([loss_fn(each, y) for each in outputs]).double().cpu()
            if outputs.ndim >= 3 and not y.is_floating_point() and outputs[0].argmax(1).shape == y.shape:
                wrong += (outputs.argmax(2) != y).flatten(1).sum(1).double().cpu()
                decided += y.numel()
            total += len(x)
    if total == 0:
        raise InputError("the loader gave no batches")
    return wrong / decided if decided else wrong.fill_(torch.nan), loss / total


def _outputs(program: Program, template: nn.Module, points: Stacked, x: Tensor, together: int) -> Tensor:
    """(points, batch, ...): some together where the network is known to compute so, else one after another."""
    count = len(next(iter(points.values())))
    found = []
    if program.steps is not None:
        for start in range(0, count, together):
            some = {name: value[start : start + together] for name, value in points.items()}
            found.append(program.outputs(some, x.expand(min(together, count - start), *x.shape)))
        return torch.cat(found)
    for number in range(count):
        _load(template, points, number)
        found.append(template(x))
    return torch.stack(found)


def _refresh(template: nn.Module, points: dict[str, Tensor], data: Data) -> None:
    """Running statistics of every point, over the data."""
    names = {id(buffer): name for name, buffer in template.named_buffers()}
    for number in range(len(next(iter(points.values())))):
        _load(template, points, number)
        refresh_statistics_(template, data)
        for norm in batch_norms(template):
            for buffer in (norm.running_mean, norm.running_var):
                points[names[id(buffer)]][number] = buffer


@torch.no_grad()
def _load(template: nn.Module, points: Stacked, number: int) -> None:
    for name, tensor in [*template.named_parameters(), *template.named_buffers()]:
        if name in points:
            tensor.copy_(points[name][number])
