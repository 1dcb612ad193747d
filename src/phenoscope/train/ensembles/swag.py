"""Gaussians around the end of a training, and several of them: `swag`, `multiswag`."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ...data.batches import Data, batch_count
from ..feed import pairs_of
from ..fit import check_length, fit
from ..fleet import fleet
from ..members import Fleet
from ..schedule import Schedule
from ..states import States
from ..statistics import batch_norms, refresh_statistics_
from .ensemble import Ensemble

_LEAST_VARIANCE = 1e-30
_BATCH = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Swag:
    """A Gaussian in weight space for every network of a fleet; `swag` makes it.

    Attributes:
        networks: the networks where the training ended, whose parameters without gradients and other buffers samples
            take over.
        mean: parameter name -> mean of the collected weights, (members, ...).
        variance: parameter name -> their variance, (members, ...).
        deviations: parameter name -> the last `rank` weights, each minus the mean at its time: (members, rank, ...).
        data: what was trained on; running statistics of batch normalization are computed on it.
    """

    networks: Fleet
    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    deviations: dict[str, Tensor]
    data: Any

    def __len__(self) -> int:
        return len(self.networks)

    def average(self) -> Fleet:
        """The networks at the means (stochastic weight averaging), with running statistics of their own."""
        return self._networks({name: value.clone() for name, value in self.mean.items()}, 1)

    def sample(
        self,
        n: int,
        *,
        scale: float = 1.0,
        diagonal: bool = False,
        generator: torch.Generator | int | None = None,
    ) -> Fleet:
        """Draw networks.

        w = mean + sqrt(s / 2) (sqrt(variance) z1 + D z2 / sqrt(R - 1)), z1 and z2 standard normal, D the R deviations,
        s the scale (Maddox, Garipov, Izmailov, Vetrov and Wilson, NeurIPS 2019, equation 1). The code of the authors of
        MultiSWAG multiplies by sqrt(scale) without the half: its 0.5 is 1 here. Running statistics of batch
        normalization are computed anew for every sample.

        Args:
            n: networks for each Gaussian.
            scale: s; 0 gives the means.
            diagonal: leave out the deviations: w = mean + sqrt(s variance) z1.
            generator: what draws.

        Returns:
            The samples of the first Gaussian, then those of the second and so on: (members x n) networks.

        Raises:
            InputError: fewer than one network or a negative scale.
        """
        if n < 1 or not scale >= 0:
            raise InputError(f"draw at least 1 network with a scale of at least 0, not {n} with {scale}")
        rng, members = seeded(generator), len(self)
        rank = next(iter(self.deviations.values())).shape[1]

        def normal(*shape: int, like: Tensor) -> Tensor:
            return torch.randn(shape, generator=rng, device=rng.device).to(like)

        z2 = normal(members, n, rank, like=next(iter(self.mean.values())))
        drawn = {}
        for name, mean in self.mean.items():
            own = normal(members, n, *mean.shape[1:], like=mean) * self.variance[name].sqrt()[:, None]
            if not diagonal:
                common = torch.bmm(z2.to(mean), self.deviations[name].flatten(2)).view_as(own)
                own = (own + common / (rank - 1) ** 0.5) / 2**0.5
            drawn[name] = (mean[:, None] + scale**0.5 * own).flatten(0, 1)
        return self._networks(drawn, n)

    def _networks(self, weights: Mapping[str, Tensor], n: int) -> Fleet:
        ends = (self.networks.parameters, self.networks.buffers)
        parameters, buffers = ({name: value.repeat_interleave(n, 0) for name, value in end.items()} for end in ends)
        found = Fleet(self.networks.template, parameters | dict(weights), buffers)
        _refresh(found, [data for data in _of_each(self.data, len(self)) for _ in range(n)])
        return found


def swag(
    networks: nn.Module | Fleet | Sequence[nn.Module],
    data: Any,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    every: int | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    rank: int = 20,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    objective: Callable[..., Tensor] | None = None,
    batch_size: int = 64,
    generator: torch.Generator | int | Sequence[int] | None = None,
) -> Swag:
    """Train on at a constant rate and fit a Gaussian to where the weights go: SWAG.

    After Maddox, Garipov, Izmailov, Vetrov and Wilson, "A Simple Baseline for Bayesian Uncertainty in Deep Learning"
    (NeurIPS 2019, section 3): weights w_i are collected every few steps; kept are their mean, their variance and the
    last R deviations w_i - mean(w_1 ... w_i). Of N networks, N Gaussians are made together.

    Args:
        networks: a trained network, or a fleet or a sequence of some; copies are trained on.
        data: as of `fit` for one network, as of `fleet` for several.
        steps: updates; or
        epochs: passes through the data. Exactly one of the two.
        every: steps between two collections; by default an epoch.
        optimizer: a factory from parameters, with a constant learning rate that is not small: half of that of the
            training before is usual.
        rank: R, how many deviations are kept.
        loss_fn: from outputs and labels to their mean loss.
        objective: in place of `loss_fn`, as in `fit` and `fleet`.
        batch_size: examples in a batch.
        generator: what shuffles the data, as in `fit` and `fleet`.

    Raises:
        InputError: a rank under 2, fewer than two collections, or what `fit` and `fleet` refuse.
    """
    check_length(steps, epochs)
    if not isinstance(networks, nn.Module):
        data = pairs_of(data)
    if rank < 2:
        raise InputError(f"rank must be at least 2, not {rank}; without deviations, sample with diagonal=True")
    count = _batches(data, batch_size) if epochs is not None or every is None else 0
    total = steps if steps is not None else epochs * count  # type: ignore[operator]
    every = count if every is None else every
    if every < 1 or total < 2 * every:
        raise InputError(
            f"{total} steps with a collection every {every} give fewer than two collections: train longer or collect "
            "more often"
        )
    settings: dict[str, Any] = {
        "steps": total, "optimizer": optimizer, "loss_fn": loss_fn, "objective": objective, "batch_size": batch_size,
        "generator": generator,
    }  # fmt: skip
    if isinstance(networks, nn.Module):
        model = copy.deepcopy(networks)
        collected = Moments(_trained(model), rank, at=range(every, total + 1, every), one=True)
        fit(model, data, states=collected, **settings)
        trained = Fleet.of([model])
    else:
        start = networks if isinstance(networks, Fleet) else Fleet.of(list(networks))
        collected = Moments(_trained(start.template), rank, at=range(every, total + 1, every))
        trained = fleet(start, data, states=collected, **settings)
        trained.states = States(at=())
    place = trained.device
    mean, variance, deviations = (
        {name: value.to(place) for name, value in tensors.items()} for tensors in collected.gaussian()
    )
    return Swag(trained, mean, variance, deviations, data)


def multiswag(
    make_model: Callable[..., nn.Module],
    data: Any,
    *,
    members: int = 5,
    samples: int = 10,
    steps: int,
    swag_steps: int,
    every: int | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    swag_lr: float | None = None,
    rank: int = 20,
    scale: float = 1.0,
    schedule: Schedule | None = None,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    batch_size: int = 64,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> Ensemble:
    """Average over several basins and within each: a mixture of SWAG Gaussians.

    After Wilson and Izmailov, "Bayesian Deep Learning and a Probabilistic Perspective of Generalization" (NeurIPS 2020,
    section 4): networks from independent initializations are trained as a fleet, `swag` puts a Gaussian around each,
    and the probabilities of all samples are averaged. With `samples=1, scale=0` it is an ensemble of averaged weights.

    Args:
        make_model: a network factory, called by `build`.
        data: as of `fleet`.
        members: K, independent trainings.
        samples: networks drawn from each Gaussian: a prediction takes K x samples forward passes.
        steps: updates of the ordinary training.
        swag_steps: updates on top, whose weights are collected.
        every: steps between two collections; by default an epoch.
        optimizer: a factory from parameters.
        swag_lr: the constant rate of the second part; by default half of the optimizer's.
        rank: deviations that are kept.
        scale: of the samples' covariance.
        schedule: of the learning rate in the ordinary training.
        loss_fn: from outputs and labels to their mean loss.
        batch_size: examples in a batch.
        generator: what everything is drawn from.
        device: where to train, by default CUDA if there is one.

    Raises:
        InputError: what `fleet`, `swag` and `Swag.sample` refuse.
    """
    seeds = child_seeds(generator, 3)
    common: dict[str, Any] = {"loss_fn": loss_fn, "batch_size": batch_size}
    trained = fleet(
        make_model, data, members=members, steps=steps, optimizer=optimizer, schedule=schedule, device=device,
        generator=seeds[0], **common,
    )  # fmt: skip

    def constant(parameters: Iterable[nn.Parameter]) -> Optimizer:
        made = optimizer(parameters)
        for group in made.param_groups:
            group["lr"] = group["lr"] / 2 if swag_lr is None else swag_lr
        return made

    around = swag(
        trained, data, steps=swag_steps, every=every, optimizer=constant, rank=rank, generator=seeds[1], **common
    )
    return Ensemble(around.sample(samples, scale=scale, generator=seeds[2]))


class Moments(States):
    """Takes in snapshots instead of keeping them: mean and variance of the weights, and the last deviations."""

    def __init__(self, names: Sequence[str], rank: int, *, at: Iterable[int], one: bool = False) -> None:
        """`one` says that states come from one network, without an axis of members."""
        super().__init__(tuple(at))
        self.names, self.one = names, one
        self.mean: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.last: deque[dict[str, Tensor]] = deque(maxlen=rank)

    def empty(self) -> Moments:
        return self

    def keep(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Take in the weights of a step, by Welford's recurrence: nothing cancels as in mean square - squared mean."""
        self._states[step] = {}
        deviation = {}
        for name in self.names:
            value = state[name].detach().clone()
            value = value[None] if self.one else value
            if name not in self.mean:
                self.mean[name], self.squares[name] = torch.zeros_like(value), torch.zeros_like(value)
            before = value - self.mean[name]
            self.mean[name] += before / len(self)
            deviation[name] = value - self.mean[name]
            self.squares[name] += before * deviation[name]
        self.last.append(deviation)

    def gaussian(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Mean, variance and deviations."""
        variance = {name: (value / len(self)).clamp(min=_LEAST_VARIANCE) for name, value in self.squares.items()}
        deviations = {name: torch.stack([each[name] for each in self.last], 1) for name in self.names}
        return self.mean, variance, deviations


def _trained(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _of_each(data: Any, members: int) -> list[Data]:
    """The data of every member, given for all or one each."""
    own = isinstance(data, (tuple, list)) and not (len(data) == 2 and isinstance(data[0], Tensor))
    return list(data) if own else [data] * members


def _batches(data: Any, batch_size: int) -> int:
    count = batch_count(_of_each(data, 1)[0], batch_size)
    if count is None:
        raise InputError("the loader does not know its length: give steps= and every=")
    return count


@torch.no_grad()
def _refresh(networks: Fleet, data: Sequence[Data]) -> None:
    """Running statistics of every member, over its own data."""
    network = copy.deepcopy(networks.template)
    if not batch_norms(network):
        return
    own = {**networks.parameters, **networks.buffers}
    for index, inputs in enumerate(data):
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            tensor.copy_(own[name][index])
        refresh_statistics_(network, inputs)
        for name, buffer in network.named_buffers():
            networks.buffers[name][index] = buffer
