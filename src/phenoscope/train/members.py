"""Many networks of one architecture, their weights stacked: `Fleet`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..data.batches import batches
from .outputs import in_mode
from .program import Program
from .states import States
from .watch import observed

Pair = tuple[Tensor, Tensor]


class Fleet:
    """Networks of one architecture that compute together; `fleet` trains them.

    Attributes:
        parameters: name -> the parameters of all members, (members, ...).
        buffers: name -> their buffers, likewise.
        history: `loss` of every member's batch before its update, over `step`, from 1, and `member`; empty before
            training.
        states: the snapshots asked for.
        watched: what a watch saw, over `step` and `member`; empty without one.
    """

    def __init__(self, template: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        import xarray

        self.template = copy.deepcopy(template)
        self.program = Program(self.template)
        self.parameters, self.buffers = dict(parameters), dict(buffers)
        self.history, self.watched = xarray.Dataset(), xarray.Dataset()
        self.states = States(at=())

    @classmethod
    @torch.no_grad()
    def of(cls, networks: Sequence[nn.Module]) -> Fleet:
        """A fleet of copies of networks.

        Raises:
            InputError: no networks, or networks whose parameters or buffers differ in name, shape, type or place.
        """
        if not networks or not all(isinstance(network, nn.Module) for network in networks):
            raise InputError("a fleet is made of at least one network, each an nn.Module")
        wanted = _outline(networks[0])
        for index, network in enumerate(networks):
            if (found := _outline(network)) != wanted:
                name = next(n for n in {**wanted, **found} if wanted.get(n) != found.get(n))
                raise InputError(
                    f"network {index} is not like network 0: {name!r} is {_said(found.get(name))} instead of "
                    f"{_said(wanted.get(name))}; a fleet's members have one architecture"
                )
        if not wanted:
            raise InputError("the networks have no parameters")
        parameters = [dict(network.named_parameters()) for network in networks]
        buffers = [dict(network.named_buffers()) for network in networks]
        stacked = [{n: torch.stack([one[n] for one in each]) for n in each[0]} for each in (parameters, buffers)]
        return cls(networks[0], *stacked)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(iter(self.parameters.values())).dtype

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def __getitem__(self, index: int) -> nn.Module:
        """A network of its own with the weights of this member, in training mode or not as the first network was."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"a fleet of {len(self)} has no member {index}")
        network = copy.deepcopy(self.template)
        with torch.no_grad():
            own = {**self.parameters, **self.buffers}
            for name, tensor in _named(network):
                tensor.copy_(own[name][index])
        return network

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<Fleet: {len(self)} x {type(self.template).__name__}>"

    def copy(self) -> Fleet:
        """The same networks once more, without history."""
        return Fleet(
            self.template,
            {name: tensor.clone() for name, tensor in self.parameters.items()},
            {name: tensor.clone() for name, tensor in self.buffers.items()},
        )

    def at(self, step: int) -> Fleet:
        """The networks as they were after a step of which `states` kept them.

        Raises:
            InputError: no state of that step.
        """
        if step not in self.states:
            raise InputError(f"no states of step {step} were kept: train with states=States(at=...)")
        past, state = self.copy(), self.states[step]
        for own in (past.parameters, past.buffers):
            for name, tensor in own.items():
                if name in state:
                    tensor.copy_(state[name])
        return past

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers of all members by the names in a network's own `state_dict`, each (members, ...)."""
        everything = {**self.parameters, **self.buffers}
        known = {id(tensor): everything[name] for name, tensor in _named(self.template)}
        return {name: known[id(tensor)] for name, tensor in self.template.state_dict(keep_vars=True).items()}

    def map(self, observe: Callable[[Any], Any], *, batched: bool = False) -> Tensor:
        """What `observe(model)` gives for every member, in evaluation mode and without gradients.

        Args:
            observe: gives a number or a tensor, of one shape for all members. The model it sees is lent, not kept.
            batched: call it once for many members, under `torch.func.vmap`. The model can then be called, and nothing
                else; `observe` must not branch on values and must give a tensor.

        Returns:
            (members, ...), on the CPU; floating point in double precision.

        Raises:
            InputError: observations that are no tensors, or of different shapes.
        """
        if batched:
            with in_mode(self.program.network, training=False), torch.no_grad():
                return observed(self.program.map({**self.parameters, **self.buffers}, observe))
        network = copy.deepcopy(self.template)
        named = [(tensor, {**self.parameters, **self.buffers}[name]) for name, tensor in _named(network)]
        found = []
        with in_mode(network, training=False), torch.no_grad():
            for index in range(len(self)):
                for tensor, stacked in named:
                    tensor.data = stacked[index]
                found.append(observed(observe(network)))
        if len({tensor.shape for tensor in found}) > 1:
            raise InputError(f"what was observed has different shapes: {sorted({tuple(t.shape) for t in found})}")
        return torch.stack(found)

    @torch.no_grad()
    def outputs(self, x: Tensor, *, batch_size: int = 128, stacked: bool = False) -> Tensor:
        """What every member gives for every example, in evaluation mode.

        Args:
            x: inputs (N, ...) for all members, or with `stacked=True` (members, N, ...), each its own.
            batch_size: examples at a time.
            stacked: whether the first axis of `x` is the members.

        Returns:
            (members, N, ...), on the fleet's device.

        Raises:
            InputError: inputs that `data.batches` refuses, or of another number of members.
        """
        if stacked and (x.ndim < 2 or len(x) != len(self)):
            raise InputError(f"stacked inputs have shape {tuple(x.shape)}; the first axis must be {len(self)} members")
        rows = x.transpose(0, 1) if stacked else x
        tensors = {**self.parameters, **self.buffers}
        found = []
        with in_mode(self.program.network, training=False):
            for part, _ in batches((rows, rows.new_zeros(len(rows))), batch_size):
                part = part.to(self.device, self.dtype if part.is_floating_point() else part.dtype)
                part = part.transpose(0, 1) if stacked else part.expand(len(self), *part.shape)
                found.append(self.program.outputs(tensors, part))
        return torch.cat(found, 1)

    def accuracy(self, data: Pair | Sequence[Pair], *, batch_size: int = 128) -> Tensor:
        """The share of examples whose highest score is that of their label, for every member.

        Args:
            data: a pair of tensors `(x, y)` for all members, `y` (N,) classes or (members, N) each its own; or a
                sequence of one pair a member, of equal shapes.
            batch_size: examples at a time.

        Returns:
            (members,), in double precision, on the fleet's device.

        Raises:
            InputError: data that `data.batches` refuses, or labels that are not one class an example.
        """
        pair: Any = data
        shared = isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor)
        if not shared:
            if not isinstance(data, Sequence) or len(data) != len(self):
                raise InputError(f"give a pair of tensors (x, y) for all members, or one for each of {len(self)}")
            pair = [torch.stack(parts) for parts in zip(*data, strict=True)]
        x, y = pair
        decisions = self.outputs(x, batch_size=batch_size, stacked=not shared).argmax(2)
        if decisions.shape != y.shape and decisions.shape[1:] != y.shape:
            raise InputError(f"labels have shape {tuple(y.shape)}, a member's decisions {tuple(decisions.shape[1:])}")
        return (decisions == y.to(decisions.device)).double().mean(1)


def _named(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _outline(network: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What has to be equal for networks to be stacked."""
    return {name: (tuple(t.shape), t.dtype, t.device, t.requires_grad) for name, t in _named(network)}


def _said(outline: tuple[Any, ...] | None) -> str:
    return "missing" if outline is None else f"{outline[1]} of shape {outline[0]} on {outline[2]}"
