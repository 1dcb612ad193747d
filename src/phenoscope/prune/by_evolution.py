"""Prune by what a recorded run saw: the filters that evolved least go first."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..data.batches import Data
from ..models.masks import Masks, prunable
from ..record import Filters, Run
from ..record.layers import Layer, clean_name, unwrap
from ..record.redundant import within
from .scores import Scope, keep_top


def by_evolution(run: Run | Callable[..., Run], *, scope: Scope = "layer") -> Callable[..., Masks]:
    """A scorer that keeps the weights of the filters that evolved most.

    A weight's score is its filter's: the time-mean of the squared distance that the filter moved between two records,
    per weight (after Hu, Wang, Li and Huang, "How Functions Evolve in Deep Convolutional Neural Network", VCIP 2018,
    equation 1). Whole filters go, those first that moved least; of equal ones those that come first, as in
    `record.least_evolved`; those without a finite record last. Exactly round(density x weights) stay, as in every
    method, so that at most one filter of each layer (of the network, with `scope="global"`) is left in part.

    The last layer keeps all of its outputs, each a class or a number that somebody reads: there it is inputs that go,
    with the score of the unit that they come from. It is treated like the others only where its inputs cannot be
    counted off to the units of the layer before. Weights elsewhere that read a removed filter still count as kept;
    `slim` removes them, too.

    Evolution is known after a training only, and a filter of one network says nothing about the filter in the same
    place of another: the scorer belongs to the network that was recorded, at the beginning of the run or at its end.
    In `compare`, where every repetition has a network of its own, `run` is a function that records it.

    Args:
        run: a recorded run of the network; or `run(model, data, generator=)`, which trains the copy of the network that
            it gets and gives the run; called once for all densities of the same network, data and integer seed.
        scope: whether filters compete with those of their layer, or with all.

    Returns:
        `scorer(model, loss_fn, data, *, density, generator=None) -> Masks`. It leaves the model as it was found, and
        raises InputError where a layer that could be pruned was not recorded, or has another shape. It warns of a
        network that is neither the run's first nor its last.
    """
    latest: list[_Latest] = []

    def evolved(
        model: nn.Module,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        data: Data | None = None,
        *,
        density: float,
        generator: torch.Generator | int | None = None,
    ) -> Masks:
        if isinstance(run, Run):
            recorded = run
            _recognize(model, run)
        else:
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            if not (latest and latest[0].of(state, data, generator)):  # otherwise recorded for another density
                latest[:] = [_Latest(state, data, generator, run(copy.deepcopy(model), data, generator=generator))]
            recorded = latest[0].run
            if not isinstance(recorded, Run):
                raise InputError(f"run= must be a recorded run or give one, not a {type(recorded).__name__}")
        return keep_top(_scores(model, recorded), density=density, scope=scope)

    return evolved


@dataclasses.dataclass(frozen=True)
class _Latest:
    """The run that was recorded last, and what it was recorded of."""

    state: dict[str, Tensor]
    data: Any
    generator: Any
    run: Run

    def of(self, state: Mapping[str, Tensor], data: Any, generator: Any) -> bool:
        same = isinstance(generator, int) and generator == self.generator and data is self.data
        return (
            same
            and state.keys() == self.state.keys()
            and all(torch.equal(self.state[name], each) for name, each in state.items())
        )


def _scores(model: nn.Module, run: Run) -> dict[str, Tensor]:
    """The rank of each weight's filter among all filters of the network, by how far it moved."""
    layers = within(model, Filters({name: np.empty(0, int) for name in run.layers}, run.layers)).layers
    weights = prunable(unwrap(model))
    for name in weights:
        if all(layer.parameter != name for layer in run.layers.values()):
            raise InputError(f"the run recorded nothing of {name!r}: record all layers that could be pruned")
    ranks = _ranks({name: run.average(name)["distance_per_weight"].values for name in run.layers})
    scores = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in weights.items()}
    for name in run.layers:
        layer = layers[name]
        if layer.parameter in scores:
            view = layer.blocks(scores[layer.parameter])
            view[:] = ranks[name].reshape(view.shape[:2] + (1,) * (view.ndim - 2))
    _by_inputs(list(run.layers.values()), ranks, scores)
    return {name: score.to(weights[name].device) for name, score in scores.items()}


def _ranks(moved: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """From 0, the filter that moved least; all different, so that no two filters are mixed."""
    values = np.concatenate(list(moved.values()))
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[torch.from_numpy(order)] = torch.arange(len(values), dtype=torch.float64)
    return dict(zip(moved, ranks.split([len(each) for each in moved.values()]), strict=True))


def _by_inputs(layers: list[Layer], ranks: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
    """Give the last layer's weights the scores of the units that they read; a flattened image has several a unit."""
    if len(layers) < 2 or layers[-1].parameter not in scores:
        return
    before, last = layers[-2:]
    channels, entries = last.entries
    alone = all(layer.parameter != last.parameter for layer in layers[:-1])
    if alone and last.expert is None and last.groups == 1 and entries == 1 and channels % len(before) == 0:
        view = last.blocks(scores[last.parameter])
        units = ranks[before.name].repeat_interleave(channels // len(before))
        view[:] = units.reshape(1, 1, channels, *[1] * (view.ndim - 3))


def _recognize(model: nn.Module, run: Run) -> None:
    """Warn if none of the run's kept weights are those of the network: its filters would stand in other places."""
    own = {clean_name(name): value.detach().cpu() for name, value in unwrap(model).named_parameters()}
    states = [lambda step=step: run.snapshot(step) for step in (run.snapshots[:1] + run.snapshots[-1:])]
    for state in [*states, run.final] if (run.path / "final.safetensors").is_file() else states:
        kept = {clean_name(name): value for name, value in state().items()}
        names = [layer.parameter for layer in run.layers.values() if layer.parameter in kept and layer.parameter in own]
        if names and all(torch.equal(own[name], kept[name].to(own[name].dtype)) for name in names):
            return
    warnings.warn(
        f"this network is neither what {run.path} began with nor what it ended with: its filters have other functions",
        stacklevel=3,
    )
