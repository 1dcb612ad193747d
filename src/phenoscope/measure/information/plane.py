"""Where the layers of a network stand in the information plane."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.taps import Layer, rows_at_once, suited, tap
from ...core.taps import layers as layers_of
from .estimators import Information, mi_binned

if TYPE_CHECKING:
    import xarray

Estimator = Callable[[Tensor, Tensor], Information]

_BOUNDED: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.Softmax: (0.0, 1.0),
}


def information_plane(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layers: Layer | type[nn.Module] | Sequence[Layer | type[nn.Module]],
    states: Mapping[int, Mapping[str, Tensor]] | None = None,
    bins: int = 30,
    estimator: Estimator | None = None,
    chunk: int | None = None,
) -> xarray.Dataset:
    """How much each layer knows about the input and about the label, now or at every snapshot of a training.

    Activations are binned alike in all layers and at all steps (`mi_binned`): over the range that a saturating unit can
    reach, tanh from -1 to 1, sigmoid and softmax from 0 to 1; and in any other layer over the range that it did reach
    in all of the snapshots, for which these are gone through twice. Bins that follow each step's values make and hide
    compression. The setting is that of Shwartz-Ziv and Tishby, "Opening the Black Box of Deep Neural Networks via
    Information" (2017), and of Saxe, Bansal, Dapello et al., "On the Information Bottleneck Theory of Deep Learning"
    (ICLR 2018), appendix C.

    In a `train.Watch` there is one moment only: there give `lambda model: information_plane(model, x, y,
    layers=nn.Tanh).input.values` for layers with a range of their own, and an `estimator` with a fixed one for others.

    Args:
        model: the network; it is left as it was found.
        x: all inputs there are, (N, ...), each as probable as any other: information is at most log2 N.
        y: their classes (N,), or p(y | x), (N, C).
        layers: names, modules or a type of modules, such as `nn.Tanh`: what comes out of these.
        states: step -> state: the `states` of a training, or one member's of a fleet; the network as it is, if `None`.
        bins: how many a unit.
        estimator: in place of the bins: from activations (N, ...) and `y` to `Information`, such as
            `functools.partial(mi_kde, noise_var=0.1)`.
        chunk: inputs in a pass; chosen by their size if `None`.

    Returns:
        In bits, over `layer` in network order, and over `step` if there are states: `input`, I(X;T), and `label`,
        I(T;Y); and `ceiling`, log2 N, which no finite sample gets beyond.

    Raises:
        InputError: no such layer, one that is not called exactly once in a pass, no states, or what the estimator
            refuses.
    """
    import numpy
    import xarray

    if states is not None and not len(states):
        raise InputError("there are no states: train with states=States(at=...)")
    if x.ndim == 0 or len(x) == 0 or len(x) != len(y):
        raise InputError(f"x and y need one row for each example; their shapes are {tuple(x.shape)}, {tuple(y.shape)}")
    chosen = layers_of(model, layers)
    ranges = {name: found for name, module in chosen.items() if (found := _bounds(module)) is not None}
    without = [name for name in chosen if name not in ranges]

    def moments() -> Iterator[dict[str, Tensor]]:
        if states is None:
            yield _activations(model, x, chosen, chunk)
        else:
            network = copy.deepcopy(model)
            for step in sorted(states):
                network.load_state_dict(states[step])
                yield _activations(network, x, chosen, chunk)

    if estimator is None and without:
        for acts in moments():
            for name in without:
                low, high = (float(edge) for edge in acts[name].aminmax())
                before = ranges.get(name, (low, high))
                ranges[name] = min(low, before[0]), max(high, before[1])
    rows = []
    for acts in moments():
        labels = y.to(next(iter(acts.values())).device)
        told = [
            mi_binned(acts[name], labels, bins=bins, range=_wide(ranges[name]))
            if estimator is None
            else estimator(acts[name], labels)
            for name in chosen
        ]
        rows.append([[each.input, each.label] for each in told])
    values = numpy.array(rows)
    plane = xarray.Dataset(
        {"input": (("step", "layer"), values[..., 0]), "label": (("step", "layer"), values[..., 1])},
        {"step": sorted(states) if states is not None else [0], "layer": list(chosen)},
    ).assign(ceiling=math.log2(len(x)))
    return plane if states is not None else plane.isel(step=0, drop=True)


def _activations(model: nn.Module, x: Tensor, names: Iterable[str], chunk: int | None) -> dict[str, Tensor]:
    """What several layers put out, from one pass through the network."""
    parts: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, output: Any) -> Any:
        first = output[0] if isinstance(output, (tuple, list)) else output
        parts[name].append(first.clone())  # at once: what comes next may work in place
        return output

    with unchanged(model), torch.no_grad(), contextlib.ExitStack() as stack:
        model.eval()
        for name in parts:
            stack.enter_context(tap(model, name, replace=functools.partial(keep, name)))
        for count, rows in enumerate(x.split(rows_at_once(x, chunk)), start=1):
            model(suited(model, rows))
            for name, found in parts.items():
                if len(found) != count:
                    raise InputError(f"{name} was called {len(found) + 1 - count} times in a pass, not once")
    return {name: torch.cat(found) for name, found in parts.items()}


def _bounds(module: nn.Module) -> tuple[float, float] | None:
    """What a layer's outputs cannot leave."""
    if isinstance(module, nn.Hardtanh):
        return float(module.min_val), float(module.max_val)
    return _BOUNDED.get(type(module))


def _wide(range: tuple[float, float]) -> tuple[float, float]:
    """A layer that always said the same has a range of no width."""
    return range if range[0] < range[1] else (range[0], range[0] + 1)
