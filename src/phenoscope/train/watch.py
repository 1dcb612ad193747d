"""Follow anything while training: `Watch`, and `Due`, which says at which steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import InputError

if TYPE_CHECKING:
    import xarray

At = int | Iterable[int]


@dataclasses.dataclass(frozen=True)
class Watch:
    """Functions of the network to call at chosen steps.

    Given to `fit` or `fleet` as `watch=`; what they saw comes back as `watched`, an `xarray.Dataset` over `step`, and
    over `member` in a fleet, in which every observer is a variable; further axes of an observer `f` are called
    `f_0`, `f_1`, ... The network is in evaluation mode and without gradients meanwhile: an observer that needs some
    works under `torch.enable_grad()`.

    Args:
        observers: name -> `observe(model)`, which gives a number or a tensor, of the same shape at every step.
        at: the steps after which to look; 0 is before the training. An integer `k` means every `k` steps, from 0,
            and after the last one.
        batched: in a fleet, call each observer once for many members, under `torch.func.vmap`, instead of once a
            member. On CPU that is two to five times as fast with small members and up to a hundred examples, and no
            gain, up to twice as slow, with a thousand. The model that it sees can be called, and nothing else; it must
            not branch on values, must give a tensor, and takes gradients by `torch.func.grad`.
            In `fit` nothing changes.
    """

    observers: Mapping[str, Callable[[Any], Any]]
    at: At
    batched: bool = False

    def __post_init__(self) -> None:
        if not self.observers:
            raise InputError("a Watch needs at least one observer")
        object.__setattr__(self, "at", settled(self.at, "watch"))


class Due:
    """At which steps something is due: `due(step, last=)`."""

    def __init__(self, at: At, what: str, total: int | None, *, early: bool = False) -> None:
        """`total` is the number of steps, if known; `early` says that the training may end before."""
        self.every = at if isinstance(at, int) else None
        self.steps = frozenset() if isinstance(at, int) else frozenset(at)
        if total is not None and self.steps and not early and max(self.steps) > total:
            raise InputError(f"{what} asks for step {max(self.steps)}, but the training ends with step {total}")

    def __call__(self, step: int, *, last: bool = False) -> bool:
        return last or step % self.every == 0 if self.every else step in self.steps


class Seen:
    """What the observers of a watch saw, step by step."""

    def __init__(self, watch: Watch, *, axes: tuple[str, ...] = ()) -> None:
        self.watch, self.axes = watch, axes
        self.steps: list[int] = []
        self.values: dict[str, list[Tensor]] = {name: [] for name in watch.observers}

    def look(self, step: int, ask: Callable[[Callable[[Any], Any]], Any]) -> None:
        """Keep what `ask(observe)` gives for every observer."""
        self.steps.append(step)
        for name, observe in self.watch.observers.items():
            value = observed(ask(observe), name)
            kept = self.values[name]
            if kept and kept[0].shape != value.shape:
                raise InputError(
                    f"observer {name!r} gave shape {tuple(value.shape)} at step {step}, {tuple(kept[0].shape)} before"
                )
            kept.append(value)

    def dataset(self) -> xarray.Dataset:
        """Everything seen, over `step` and the further axes."""
        import numpy
        import xarray

        variables = {}
        for name, values in self.values.items():
            if values:
                array = torch.stack(values).numpy()
                further = tuple(f"{name}_{axis}" for axis in range(array.ndim - 1 - len(self.axes)))
                variables[name] = (("step", *self.axes, *further), array)
        found = xarray.Dataset(variables, {"step": numpy.asarray(self.steps, dtype=int)})
        return found.assign_coords({axis: numpy.arange(found.sizes[axis]) for axis in self.axes if axis in found.sizes})


def settled(at: At, what: str) -> At:
    """The steps, checked: an integer, or a tuple in order."""
    if isinstance(at, int):
        if at < 1:
            raise InputError(f"{what}: every {at} steps is never; give at least 1")
        return at
    steps = tuple(sorted({int(step) for step in at}))
    if steps and steps[0] < 0:
        raise InputError(f"{what}: steps count from 0; there is no step {steps[0]}")
    return steps


def observed(value: Any, name: str = "observe") -> Tensor:
    """What an observer gave, as a tensor of its own on the CPU; floating point in double precision."""
    import numpy

    try:  # through numpy, because torch takes a number of Python's for single precision
        tensor = (value if isinstance(value, Tensor) else torch.as_tensor(numpy.asarray(value))).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"observer {name!r} gave a {type(value).__name__}; give a number or a tensor") from error
    return tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()
