"""What chosen filters are worth: zero them, evaluate, put them back; beside random and smallest-norm filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.guard import unchanged
from ..core.random import seeded
from ..stats import bootstrap
from .layers import Layer, clean_name, unwrap
from .redundant import within

ALL = "all layers"


def ablate(
    model: nn.Module,
    filters: Mapping[str, Any],
    evaluate: Callable[[nn.Module], float],
    *,
    repeats: int = 20,
    generator: torch.Generator | int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> xr.Dataset:
    """How much accuracy is lost when the chosen filters are zeroed: one layer at a time, then in all layers at once.

    Weight and bias of the chosen filters become zero, the network is evaluated, and they are put back bit by bit, also
    when `evaluate` fails. Two baselines zero as many filters of the same layer: drawn at random, and those of the
    smallest L1 norm. After Hu, Wang, Li and Huang, "How Functions Evolve in Deep Convolutional Neural Network" (VCIP
    2018), table IV. Evaluations: 1 + (repeats + 2) for each layer with chosen filters and for all layers together.

    Args:
        model: the trained network; left as it was found.
        filters: layer name -> indices of filters, as `redundant` and `least_evolved` give.
        evaluate: from the network, in evaluation mode, to its accuracy on held-out data, as a share of 1.
        repeats: how many random choices each layer is compared with.
        generator: what these are drawn from: a generator on the CPU, or an integer seed.
        progress: called with the evaluations done and their total, after each.

    Returns:
        Dimensions `layer` (the layers in network order, then "all layers") and `draw`; every accuracy and drop is a
        share of 1, and a drop is the accuracy before minus the accuracy after:

        - `count`, `filters` (layer): filters zeroed, and filters that the layer has.
        - `accuracy` (): before anything is zeroed.
        - `drop` (layer): by the chosen filters.
        - `random_drop` (layer, draw), `random_mean`, `random_low`, `random_high` (layer): by random ones, with the
          mean and its 95 % interval over the draws (`stats.bootstrap`).
        - `norm_drop` (layer): by those of the smallest L1 norm.

        A layer without chosen filters is not evaluated; its drops are 0.

    Raises:
        InputError: a layer that the network lacks, an index past its last filter, a weight under a reparametrization
            that zeroing does not reach, `repeats` below 1, an accuracy that is not finite.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats!r}")
    choice = within(model, filters)
    if not choice:
        raise InputError("filters names no layer")
    places = {name: _place(model, choice.layers[name]) for name in choice}
    rng = seeded(generator)
    rows = {name: [name] for name in choice} | {ALL: list(choice)}
    total = 1 + (repeats + 2) * sum(any(len(choice[name]) for name in names) for names in rows.values())
    done = 0

    def accuracy(chosen: Mapping[str, np.ndarray], what: str) -> float:
        nonlocal done
        model.eval()
        with _zeroed([(places[name], indices) for name, indices in chosen.items()]), torch.no_grad():
            value = float(evaluate(model))
        if not math.isfinite(value):
            raise InputError(f"evaluate gave {value} {what}; it must give the accuracy as a finite number")
        done += 1
        if progress is not None:
            progress(done, total)
        return value

    drops = np.zeros(len(rows))
    norm_drops = np.zeros(len(rows))
    random_drops = np.zeros((len(rows), repeats))
    intervals = np.zeros((len(rows), 3))
    with unchanged(model):
        before = accuracy({}, "for the network as it is")
        for row, (label, names) in enumerate(rows.items()):
            chosen = {name: choice[name] for name in names if len(choice[name])}
            if not chosen:
                continue
            drops[row] = before - accuracy(chosen, f"with filters of {label} zeroed")
            smallest = {name: places[name].smallest(len(indices)) for name, indices in chosen.items()}
            norm_drops[row] = before - accuracy(smallest, f"with the smallest filters of {label} zeroed")
            for draw in range(repeats):
                random = {name: places[name].random(len(indices), rng) for name, indices in chosen.items()}
                random_drops[row, draw] = before - accuracy(random, f"with random filters of {label} zeroed")
            intervals[row] = bootstrap(random_drops[row], generator=rng.initial_seed() + row)
    mean, low, high = intervals.T
    counts, sizes = choice.counts, {name: len(choice.layers[name]) for name in choice}
    return xr.Dataset(
        {
            "count": ("layer", [*counts.values(), sum(counts.values())]),
            "filters": ("layer", [*sizes.values(), sum(sizes.values())]),
            "accuracy": before,
            "drop": ("layer", drops),
            "random_drop": (("layer", "draw"), random_drops),
            "random_mean": ("layer", mean),
            "random_low": ("layer", low),
            "random_high": ("layer", high),
            "norm_drop": ("layer", norm_drops),
        },
        coords={"layer": list(rows), "draw": np.arange(repeats)},
        attrs={
            "note": "Weight and bias of the chosen filters set to zero, one layer at a time and in all layers at once; "
            "drops are accuracy before minus after. random: as many filters of the same layer, drawn "
            "anew each time, with the mean and its 95 % interval over the draws. norm: as many of the smallest L1 norm."
        },
    )


class _Place(NamedTuple):
    """Views into a layer's live weight (groups, filters, channels, *entries) and bias (filters, entries)."""

    weight: Tensor
    bias: Tensor | None

    def __len__(self) -> int:
        return self.weight.shape[0] * self.weight.shape[1]

    def smallest(self, count: int) -> np.ndarray:
        """The filters of the smallest L1 norm of their weights; of equal ones those that come first."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        norms = self.weight.abs().flatten(2).sum(2, dtype=wide).flatten()
        return torch.argsort(norms, stable=True)[:count].cpu().numpy()

    def random(self, count: int, generator: torch.Generator) -> np.ndarray:
        return torch.randperm(len(self), generator=generator, device=generator.device)[:count].cpu().numpy()


def _place(model: nn.Module, layer: Layer) -> _Place:
    parameters = {clean_name(name): p for name, p in unwrap(model).named_parameters(remove_duplicate=False)}
    if "parametrizations." in layer.parameter or layer.parameter.endswith("_v"):
        raise InputError(
            f"the weight of {layer.name!r} is computed by a parametrization, which zeroing does not reach; fold it "
            "into the weight first (remove_parametrizations or remove_weight_norm of torch.nn.utils)"
        )
    # .data: the network is put back exactly, so a backward pass that still waits for these weights may go on
    bias = parameters[layer.bias].data if layer.bias is not None else None
    return _Place(layer.blocks(parameters[layer.parameter].data), layer.rows_of(bias) if bias is not None else None)


@contextmanager
def _zeroed(chosen: Sequence[tuple[_Place, np.ndarray]]) -> Iterator[None]:
    """These filters are zero inside, and exactly what they were afterwards."""
    kept: list[tuple[Tensor, tuple[Tensor, ...], Tensor]] = []
    for place, indices in chosen:
        at = torch.from_numpy(np.array(indices)).to(place.weight.device)
        size = place.weight.shape[1]
        kept.append((place.weight, (at // size, at % size), place.weight[at // size, at % size]))
        if place.bias is not None:
            kept.append((place.bias, (at,), place.bias[at]))
    try:
        for view, at_filters, _ in kept:
            view[at_filters] = 0
        yield
    finally:
        for view, at_filters, before in kept:
            view[at_filters] = before
