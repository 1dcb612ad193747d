"""Iterative magnitude pruning: train, prune the smallest weights, start again from the beginning."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..core.errors import InputError
from ..core.random import child_seeds
from ..models.masks import Masks, prunable
from ..train.fit import Fit
from ..train.states import States
from .magnitude import one_shot
from .retrain import Retraining
from .scores import Scope

if TYPE_CHECKING:
    import torch
    import xarray


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse subnetwork with the weights that its training starts from.

    Attributes:
        masks: the weights that it keeps.
        init_state: the state dict that training starts from, unmasked.
        density: the share of the prunable weights that it keeps.
        seed: what its training draws from; a control that gets the same one sees the same batches.
        model: the subnetwork after training; `None` if it has not been trained.
        accuracy: what `evaluate` gave for the trained one; `None` without.
        history: of its training.
        watched: what a watch saw of it.
    """

    masks: Masks
    init_state: Mapping[str, Tensor]
    density: float
    seed: int = 0
    model: nn.Module | None = None
    accuracy: float | None = None
    history: xarray.Dataset | None = None
    watched: xarray.Dataset | None = None

    def network(self, model: nn.Module) -> nn.Module:
        """A copy of a network of this architecture that stands where the ticket's training starts."""
        network = copy.deepcopy(model)
        network.load_state_dict(dict(self.init_state))
        return self.masks.apply_(network)


def imp(
    model: nn.Module,
    data: Any,
    fit: Callable[..., Fit],
    *,
    rounds: int,
    rate: float = 0.2,
    output_rate: float | None = None,
    rewind_step: int = 0,
    retrain: Retraining | None = None,
    scope: Scope = "layer",
    evaluate: Callable[[nn.Module], float] | None = None,
    generator: torch.Generator | int | None = None,
) -> list[Ticket]:
    """Find lottery tickets by iterative magnitude pruning (Frankle and Carbin, ICLR 2019, section 2).

    Train the network, prune the share `rate` of the weights that are left, those of the smallest magnitude, give the
    others the values back that they had at the start, and begin again. After n rounds the density is (1 - rate)^n.
    With `rewind_step` they get the values of that step of the first training (Frankle, Dziugaite, Roy and Carbin,
    "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020). Biases and norms are put back too and
    never pruned. Each training makes its own optimizer, so that nothing is remembered of pruned weights.

    With `retrain` each round does something else than begin again (Renda, Frankle and Carbin, "Comparing Rewinding and
    Fine-tuning in Neural Network Pruning", ICLR 2020): it goes on from the round before, with the last or the repeated
    rates, or goes back to an early step of the first training and makes only the steps after it.

    Args:
        model: the network at its initialization; left as it was found.
        data: what `fit` takes.
        fit: trains a network in place: `fit(model, data, masks=, generator=)`, usually a `functools.partial` of
            `train.fit`; with `rewind_step` it also gets `states=`, with `retrain` `steps=` and `schedule=`.
        rounds: how often to prune.
        rate: the share of the remaining weights that goes in each round.
        output_rate: another rate for the last layer, with `scope="layer"`; the paper takes half of `rate`.
        rewind_step: the step of the first training that the weights are put back to; 0 is the initialization.
        retrain: what to do after each cut, as `retraining` says it, with the steps and the schedule of `fit`.
        scope: whether weights compete within their layer, as in the paper's small networks, or all with each other.
        evaluate: from a trained network to its accuracy. Whoever chooses a round by it gives held-out data, not the
            data that is reported on.
        generator: gives each round a seed of its own for `fit`.

    Returns:
        The tickets, each trained: `rounds + 1`, of which the first is the dense network.

    Raises:
        InputError: no rounds, a rate outside [0, 1), `output_rate` with a global scope, a negative `rewind_step`, or
            one that the training does not reach, `rewind_step` and `retrain` together, or a `retrain` without steps.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, not {rounds}")
    if retrain is not None and (rewind_step or retrain.steps < 1):
        raise InputError("retrain= makes at least one step and says itself where it starts: leave rewind_step= out")
    for name, value in (("rate", rate), ("output_rate", output_rate)):
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{name} is a share from 0 to below 1, not {value!r}")
    if output_rate is not None and scope != "layer":
        raise InputError("output_rate= needs scope='layer': globally all weights compete with each other")
    if rewind_step < 0:
        raise InputError(f"rewind_step must be 0 or a step of the training, not {rewind_step}")
    start: Mapping[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
    rates = dict.fromkeys(prunable(model), rate)
    if output_rate is not None:
        rates[list(rates)[-1]] = output_rate
    masks = Masks.ones(model)
    again = {} if retrain is None else {"steps": retrain.steps, "schedule": retrain.schedule}
    back_to = rewind_step if retrain is None else retrain.start
    tickets: list[Ticket] = []
    for number, seed in enumerate(child_seeds(generator, rounds + 1)):
        if number:
            shares = {name: (1 - each) ** number for name, each in rates.items()}
            density = shares if scope == "layer" else (1 - rate) ** number
            assert tickets[-1].model is not None
            masks = one_shot(tickets[-1].model, density=density, scope=scope, within=masks)
            if back_to is None:
                start = {name: value.clone() for name, value in tickets[-1].model.state_dict().items()}
        ticket = Ticket(masks, start, masks.density, seed)
        network = ticket.network(model)
        settings: dict[str, Any] = {"masks": masks, "generator": seed} | (again if number else {})
        if back_to and not number:
            settings["states"] = States([back_to])
        trained = fit(network, data, **settings)
        if back_to and not number:
            if trained.states is None or back_to not in trained.states:
                raise InputError(f"step {back_to}, to rewind to, lies beyond the steps of the training")
            start = dict(trained.states[back_to])
            ticket = dataclasses.replace(ticket, init_state=start)
        accuracy = None if evaluate is None else float(evaluate(network))
        tickets.append(
            dataclasses.replace(
                ticket, model=network, accuracy=accuracy, history=trained.history, watched=trained.watched
            )
        )
    return tickets
