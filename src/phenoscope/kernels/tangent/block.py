"""What is kept of a block of examples for products with other blocks."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...core.errors import InputError
from .passes import cotangents, gradients_by_parameters
from .plan import Part, Plan, formed


@dataclasses.dataclass(eq=False)
class Layer:
    """A layer's inputs at every use, and the derivatives (n, E, G, O, L) of E outputs by what it gives."""

    part: Part
    inputs: list[Tensor]
    slopes: Tensor


@dataclasses.dataclass(eq=False)
class Block:
    """Some examples: gradients (n, E, P) by some parameters, and for other layers what makes up gradients."""

    gradients: Tensor
    layers: list[Layer]

    def __len__(self) -> int:
        return len(self.gradients)


def block(plan: Plan, x: Tensor, chosen: range, kept: list[bool], *, step: int, space: int) -> Block:
    """Go through a block of examples.

    Args:
        plan: of the network.
        x: (n, ...) inputs.
        chosen: outputs.
        kept: for every part of the plan whether its gradients are formed here.
        step: examples in a pass.
        space: bytes that derivatives by parameters without a rule may take at once.

    Raises:
        InputError: a layer that is used otherwise than in the trial.
    """
    n, count, like = len(x), len(chosen), next(iter(plan.model.parameters()))
    width = sum(part.rule.size for part, keeps in zip(plan.parts, kept, strict=True) if keeps and part.uses)
    whole = Block(like.new_zeros(n, count, width + plan.rest_size).detach(), [])
    for part, keeps in zip(plan.parts, kept, strict=True):
        if part.uses and not keeps:
            shape = n, count, part.rule.groups, part.rule.outputs, part.positions
            whole.layers.append(Layer(part, [], like.new_empty(shape).detach()))
    if any(part.uses for part in plan.parts):
        for start in range(0, n, step):
            _go_through(plan, x[start : start + step], chosen, kept, whole, start)
    if plan.rest:
        each = count * plan.rest_size * like.element_size()
        whole.gradients[:, :, width:] = gradients_by_parameters(
            plan.model, plan.rest, x, chosen, chunk=max(1, space // each)
        )
    return whole


def _go_through(plan: Plan, x: Tensor, chosen: range, kept: list[bool], whole: Block, start: int) -> None:
    """Fill in the rows of some examples."""
    rows = slice(start, start + len(x))
    taken: list[Tensor | list[Tensor] | None] = []
    for places, inputs, slopes in cotangents(plan.model, [part.rule.layer for part in plan.parts], x, chosen):
        if not taken:
            _check(plan.parts, inputs, len(x))
            taken = [
                part.rule.taken(each) if keeps and part.uses else None
                for part, keeps, each in zip(plan.parts, kept, inputs, strict=True)
            ]
            raw = [each for part, keeps, each in zip(plan.parts, kept, inputs, strict=True) if part.uses and not keeps]
            for layer, each in zip(whole.layers, raw, strict=True):
                layer.inputs = [torch.cat(two) for two in zip(layer.inputs, each, strict=True)] if start else each
        others, begin = iter(whole.layers), 0
        for part, ready, gradients in zip(plan.parts, taken, slopes, strict=True):
            if not part.uses:
                continue
            into = None if ready is not None else next(others)
            for number, place in enumerate(places):
                one = [each[number] for each in gradients]
                if ready is not None:
                    whole.gradients[rows, place, begin : begin + part.rule.size] = formed(part.rule, ready, one)
                elif into is not None:
                    into.slopes[rows, place] = part.rule.slopes(one)
            begin += part.rule.size if into is None else 0


def _check(parts: list[Part], inputs: list[list[Tensor]], n: int) -> None:
    for part, each in zip(parts, inputs, strict=True):
        if len(each) != part.uses or any(len(x) != n for x in each):
            raise InputError(
                f"a {type(part.rule.layer).__name__} is used otherwise from batch to batch: take method='jacobian'"
            )
        if part.uses and sum(x[0].numel() for x in each) != part.inputs:
            raise InputError("all inputs must have the same shape")
