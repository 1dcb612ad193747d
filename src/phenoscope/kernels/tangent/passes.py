"""One pass forward and one back for every output: what each layer took in, and the derivatives by what it gave."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from ...core.errors import InputError
from ...core.parameters import call

_SMALL = 2**18  # numbers in a pass under which a call costs more than its arithmetic


class Unsuited(Exception):
    """Why a network's kernel cannot be had this way."""


Uses = list[tuple[Tensor, Tensor]]  # what a layer took in and what it gave, at every use


def cotangents(
    model: nn.Module, layers: Sequence[nn.Module], x: Tensor, chosen: range
) -> Iterator[tuple[range, list[list[Tensor]], list[list[Tensor]]]]:
    """Passes back, for one output at a time or, where that is faster, for all.

    Args:
        model: a network.
        layers: those of it that are looked at.
        x: (n, ...) inputs.
        chosen: outputs.

    Returns:
        For every group of outputs: their places in `chosen`; what each layer took in at each use, (n, ...); the
        derivatives by what it gave, (outputs of the group, n, ...).
    """
    with torch.enable_grad(), _watched(layers) as seen:
        out = model(x).reshape(len(x), -1)
        sums = out.sum(0)
    uses = [seen[layer] for layer in layers]
    taken = [[x.detach() for x, _ in some] for some in uses]
    given = [y for some in uses for _, y in some]
    if not out.requires_grad or not given:
        zeros = [[torch.zeros_like(y)[None].expand(len(chosen), *y.shape) for _, y in some] for some in uses]
        yield range(len(chosen)), taken, zeros
        return
    directions = torch.eye(len(sums), dtype=sums.dtype, device=sums.device)[chosen.start : chosen.stop]
    together = len(chosen) > 1 and sum(y.numel() for y in given) * len(chosen) <= _SMALL
    if together:
        found = _all_at_once(sums, given, directions)
        if found is not None:
            yield range(len(chosen)), taken, _by_layer(found, uses)
            return
    for place, direction in enumerate(directions):
        last = place == len(chosen) - 1
        one = torch.autograd.grad(sums, given, direction, retain_graph=not last, allow_unused=True)
        filled = [torch.zeros_like(y) if g is None else g for y, g in zip(given, one, strict=True)]
        yield range(place, place + 1), taken, _by_layer([g[None] for g in filled], uses)


def _all_at_once(sums: Tensor, given: list[Tensor], directions: Tensor) -> list[Tensor] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that vmap does one by one
            found = torch.autograd.grad(
                sums, given, directions, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
    except RuntimeError:  # an operation that vmap has no rule for
        return None
    return [
        y.new_zeros(len(directions), *y.shape) if g is None else g.detach() for y, g in zip(given, found, strict=True)
    ]


def _by_layer(gradients: list[Tensor], uses: list[Uses]) -> list[list[Tensor]]:
    left = iter(gradients)
    return [[next(left) for _ in some] for some in uses]


@contextmanager
def _watched(layers: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Uses]]:
    seen: dict[nn.Module, Uses] = {layer: [] for layer in layers}

    def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if len(inputs) != 1:
            raise Unsuited(f"a {type(layer).__name__} gets its input by keyword")
        seen[layer].append((inputs[0], output))
        return output.clone()  # an activation that works in place must not change what is differentiated by

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def gradients_by_parameters(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, chosen: range, *, chunk: int
) -> Tensor:
    """(n, outputs, P): the derivatives of every example's outputs by some parameters, by torch.func.

    Raises:
        InputError: a network that torch.func cannot trace.
    """

    def outputs(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return call(model, values, one[None]).reshape(-1)[chosen.start : chosen.stop]

    each = vmap(jacrev(outputs), in_dims=(None, 0), randomness="different", chunk_size=chunk)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of operations that go one by one
            found = each(dict(parameters), x)
    except RuntimeError as error:
        if "vmap" not in str(error) and "functorch" not in str(error):
            raise
        raise InputError(f"torch.func cannot trace this network: {str(error).splitlines()[0]}") from error
    return torch.cat([value.detach().flatten(2) for value in found.values()], 2)
