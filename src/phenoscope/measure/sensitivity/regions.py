"""How many linear regions of a network a path crosses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.taps import rows_at_once, suited, tap

_CODES: dict[type[nn.Module], Callable[[nn.Module, Tensor], Tensor]] = {
    nn.ReLU: lambda _, out: out > 0,
    nn.LeakyReLU: lambda _, out: out > 0,
    nn.PReLU: lambda _, out: out > 0,
    nn.RReLU: lambda _, out: out > 0,
    nn.Hardtanh: lambda module, out: (out > module.min_val).byte() + (out >= module.max_val).byte(),  # type: ignore[operator]
}  # ReLU6 is a Hardtanh


def region_transitions(
    model: nn.Module, path: Tensor, *, closed: bool = False, tolerance: float = 1e-4, chunk: int | None = None
) -> int:
    """The number of times that a hidden unit switches along a path, straight from point to point.

    A network of rectifiers is linear wherever the pattern of its units, on or off, is the same. The transitions t(x) of
    Novak, Bahri, Abolafia, Pennington and Sohl-Dickstein, "Sensitivity and Generalization in Neural Networks" (ICLR
    2018, section 3.1.2) are the Hamming distances of neighboring patterns, summed along a path; few mean that the
    network is smooth there. A stretch in which more than one unit switches is halved, so that units are found that
    switch back within it. Each unit of a convolution counts, at every place.

    Args:
        model: from a batch to outputs, in evaluation mode; its rectifiers are modules: ReLU, leaky and parametric ones,
            ReLU6 and Hardtanh (which have three states).
        path: (P, ...), inputs, such as `data.trajectory` makes.
        closed: whether the path goes back from the last point to the first.
        tolerance: the length, as a share of the step between two points, below which nothing is halved.
        chunk: inputs in a pass; chosen by their size if `None`.

    Raises:
        InputError: fewer than two points, a network without such modules, or a tolerance outside (0, 1].

    Examples:
        >>> net = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
        >>> with torch.no_grad():
        ...     _ = net[0].weight.fill_(1.0), net[0].bias.copy_(torch.tensor([-0.2, -0.5, -2.0]))
        >>> region_transitions(net, torch.tensor([[0.0], [1.0]]))
        2
    """
    if path.ndim < 2 or len(path) < 2:
        raise InputError(f"a path has at least two points (P, ...); its shape is {tuple(path.shape)}")
    if not 0 < tolerance <= 1:
        raise InputError(f"tolerance must be above 0 and at most 1, not {tolerance}")
    path = suited(model, path.detach())
    following = path.roll(-1, 0) if closed else path[1:]
    begins = path if closed else path[:-1]
    total = 0
    with unchanged(model), torch.no_grad():
        model.eval()
        size = rows_at_once(path, chunk)
        for start, end in zip(begins.split(size), following.split(size), strict=True):
            total += _between(model, start, end, tolerance)
    return total


def _between(model: nn.Module, start: Tensor, end: Tensor, tolerance: float) -> int:
    """Transitions between pairs of points; pairs that wait hold their patterns, at most as many as came."""
    total = 0
    waiting = [(start, end, _pattern(model, start), _pattern(model, end), 1.0)]
    while waiting:
        start, end, first, last, length = waiting.pop()
        changes = (first != last).sum(1)
        split = (changes > 1) & (length > tolerance)
        total += int(changes[~split].sum())
        if bool(split.any()):
            start, end, first, last = start[split], end[split], first[split], last[split]
            middle = (start + end) / 2
            between = _pattern(model, middle)
            waiting += [(start, middle, first, between, length / 2), (middle, end, between, last, length / 2)]
    return total


def _pattern(model: nn.Module, x: Tensor) -> Tensor:
    """The states of all hidden units, (N, units)."""
    found: list[Tensor] = []
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            read = next((_CODES[kind] for kind in type(module).__mro__ if kind in _CODES), None)
            if read is not None:
                stack.enter_context(tap(model, name, replace=_reader(module, read, found)))
        model(x)
    if not found:
        raise InputError("the network has no rectifier among its modules (nn.ReLU and its kind): none can switch")
    return torch.cat([each.byte() for each in found], 1)


def _reader(
    module: nn.Module, read: Callable[[nn.Module, Tensor], Tensor], found: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    def kept(output: Tensor) -> Tensor:
        found.append(read(module, output).flatten(1))  # at once: what comes next may work in place
        return output

    return kept
