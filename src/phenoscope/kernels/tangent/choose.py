"""Which way to the tangent kernel of a network is the cheapest."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...core.errors import InputError
from ...core.taps import suited
from .blocks import Blocks
from .plan import Plan, plan
from .rules import Tokens
from .tiles import Sizes, Tangents, sizes
from .vector_products import Products


def tangents(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None,
    *,
    count: int,
    chosen: range,
    full: bool,
    method: str,
    memory: int,
    chunk: int | None,
) -> Blocks:
    """What makes blocks of the kernel.

    Args:
        model, x1, x2: as for `empirical_ntk`.
        count: outputs that the network has.
        chosen: those of the kernel.
        full: whether they are kept apart.
        method, memory, chunk: as for `empirical_ntk`.

    Raises:
        InputError: "layers" for a network without a layer that suits.
    """
    pair = suited(model, torch.cat([x1[:1], (x1[-1:] if x2 is None else x2[:1])]))
    made = plan(model, pair, count, layers=method in ("auto", "layers"))
    n1, n2 = len(x1), None if x2 is None else len(x2)
    size = sizes(made, n1, n2, len(chosen), full, memory, chunk)
    if method == "layers" and not any(part.uses for part in made.parts):
        reasons = "; ".join(made.reasons) or "no layer of it has a rule"
        raise InputError(f"method='layers' does not suit this network: {reasons}")
    tells = made.rest or any(isinstance(part.rule, Tokens) for part in made.parts)  # elsewhere layers cost less
    if method == "auto" and tells:
        forward = forward_cost(model, pair)
        cost = cost_of_layers(made, forward, n1, n2, len(chosen), full, size)
        if cost_of_products(forward, n1, n2, len(chosen)) < cost and has_forward_mode(model, pair[:1]):
            method = "products"
    if method == "products":
        block = chunk or max(1, memory // (4 * made.saved + 1))  # a derivative beside every value
        return Products(model, x1, x2, chosen, full, min(block, max(n1, n2 or 0)))
    return Tangents(made, x1, x2, chosen, full, size)


def has_forward_mode(model: nn.Module, one: Tensor) -> bool:
    """Whether torch has derivatives in forward mode of all that the network does."""
    try:
        Products(model, one, None, range(1), False, 1)(0, 0)
    except (InputError, RuntimeError):
        return False
    return True


def forward_cost(model: nn.Module, pair: Tensor) -> float:
    """Multiplications of matrices and convolutions in a pass for one example."""
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model(pair[:1])
    return float(counted.get_total_flops()) / 2


def cost_of_products(forward: float, n1: int, n2: int | None, outputs: int) -> float:
    """Multiplications of "products": 3 F for every gradient, and 3 F for each example of a pass along it."""
    columns = (n1 if n2 is None else n2) * outputs
    return 3 * forward * columns * (1 + n1 / (2 if n2 is None else 1))


def cost_of_layers(made: Plan, forward: float, n1: int, n2: int | None, outputs: int, full: bool, size: Sizes) -> float:
    """Multiplications of a plan, with F those of a pass forward, which a pass back needs again.

    (1 + C) F for every example of a block on either side, 3 C F where gradients are formed without a rule; what its
    parts count for products; for P parameters without a rule C P, or C^2 P, a pair.
    """
    right = n1 if n2 is None else n2
    block = min(size.block, max(n1, right))
    pairs = n1 * right / (2 if n2 is None else 1)
    passes = n1 + pairs / block
    cost = passes * (1 + outputs) * forward
    for part in made.parts:
        if part.positions:
            counts = block, block, outputs, full
            cost += min(part.by_gradients(*counts), part.by_positions(*counts)) * pairs / block**2
    if made.rest:
        cost += 3 * passes * outputs * forward + pairs * made.rest_size * outputs ** (2 if full else 1)
    return cost
