"""A traced network: what is computed from its inputs alone, and the rules that its kernels go through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from .layer_rules import Embed, Source
from .state import Rule


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One rule of a network.

    Attributes:
        name: of its result.
        place: where in the network, for messages.
        rule: what happens to the kernels; a source makes them from data.
        inputs: names of the results it takes; of a source, first that of the data.
        full: whether its result has every pair of positions.
    """

    name: str
    place: str
    rule: Rule | Source | Embed
    inputs: tuple[str, ...]
    full: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """Something computed from the inputs alone.

    Attributes:
        name: of its value.
        function: called with `args` and `kwargs`, in which `Known` stands for earlier values.
    """

    name: str
    place: str
    function: Callable[..., Any]
    args: Any
    kwargs: Any


@dataclasses.dataclass(frozen=True)
class Known:
    """A value that the inputs alone decide."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A traced network.

    Attributes:
        input: name of the network's input.
        recipes: what is computed from it alone, in order.
        steps: what is done to the kernels, in order.
        result: name of the last state.
    """

    input: str
    recipes: tuple[Recipe, ...]
    steps: tuple[Step, ...]
    result: str


def values_of(program: Program, x: Tensor) -> dict[str, Any]:
    """All that the inputs alone decide, by name."""
    known: dict[str, Any] = {program.input: x}

    def filled(value: Any) -> Any:
        if isinstance(value, Known):
            return known[value.name]
        if isinstance(value, (tuple, list)):
            return type(value)(map(filled, value))
        if isinstance(value, slice):
            return slice(filled(value.start), filled(value.stop), filled(value.step))
        return value

    with torch.no_grad():
        for recipe in program.recipes:
            kwargs = {key: filled(each) for key, each in recipe.kwargs.items()}
            try:
                known[recipe.name] = recipe.function(*filled(recipe.args), **kwargs)
            except Exception as error:
                raise InputError(f"{recipe.place} cannot take these inputs: {error}") from error
    return known
