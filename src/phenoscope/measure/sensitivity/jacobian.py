"""The derivative of a network's outputs, or of a layer, by its inputs, or by an earlier layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.gradients import per_example_only
from ...core.guard import unchanged
from ...core.random import seeded
from ...core.taps import suited, tap

Output = Literal["logit", "probability"]
_ELEMENTS = 2**24  # numbers of a backward pass, all outputs together


def jacobian(
    model: nn.Module,
    x: Tensor,
    *,
    output: Output = "logit",
    start: nn.Module | str | None = None,
    end: nn.Module | str | None = None,
    chunk: int | None = None,
) -> Tensor:
    """J = d out / d in for every example, exactly, by reverse mode.

    Args:
        model: from a batch to outputs; taken in evaluation mode.
        x: (N, ...) inputs.
        output: derivatives of the network's outputs as they are, or of their softmax.
        start: the layer by whose output to differentiate; the network's input if `None`.
        end: the layer whose output to differentiate; the network's output if `None`.
        chunk: outputs in a backward pass; chosen by size if `None`.

    Returns:
        (N, size of the output, size of the input), both flattened; in the model's dtype.

    Raises:
        InputError: no such layer, one that is not called once, layers in the wrong order, no examples, or batch
            normalization without running statistics.

    Examples:
        >>> layer = nn.Linear(3, 2)
        >>> bool((jacobian(layer, torch.zeros(4, 3)) == layer.weight).all())
        True
    """
    with unchanged(model), torch.enable_grad():
        inside, out = _ends(model, x, output, start, end)
        outputs = out.reshape(len(x), -1)
        size = chunk or max(1, _ELEMENTS // max(inside.numel(), outputs.numel()))
        rows = [
            _products(outputs, inside, part[:, None, :].expand(-1, len(x), -1))
            for part in torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device).split(size)
        ]
        return torch.cat(rows).transpose(0, 1)


def jacobian_norm(
    model: nn.Module,
    x: Tensor,
    *,
    output: Output = "probability",
    start: nn.Module | str | None = None,
    end: nn.Module | str | None = None,
    n: int | None = None,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """|J|_F for every example: how far outputs move under small changes of the input (Novak et al., ICLR 2018).

    Args:
        model: from a batch to outputs; taken in evaluation mode.
        x: (N, ...) inputs.
        output: of the softmax, as the paper has it, or of the outputs as they are, which scale with confidence.
        start: the layer by whose output to differentiate; the network's input if `None`.
        end: the layer whose output to differentiate; the network's output if `None`.
        n: estimate it as sqrt(mean of |v^T J|^2) over so many random v of independent signs, which is unbiased before
            the root; exact if `None`. For networks with many outputs.
        generator: what draws them.

    Returns:
        (N,).

    Raises:
        InputError: as `jacobian`, or n under 1.
    """
    if n is None:
        return jacobian(model, x, output=output, start=start, end=end).square().sum((1, 2)).sqrt()
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
    generator = seeded(generator)
    with unchanged(model), torch.enable_grad():
        inside, out = _ends(model, x, output, start, end)
        outputs = out.reshape(len(x), -1)
        total = torch.zeros(len(x), dtype=outputs.dtype, device=outputs.device)
        for first in range(0, n, size := max(1, _ELEMENTS // max(inside.numel(), outputs.numel()))):
            shape = (min(size, n - first), *outputs.shape)
            signs = torch.randint(2, shape, generator=generator, device=generator.device) * 2 - 1
            total += _products(outputs, inside, signs.to(outputs)).square().sum((0, 2))
        return (total / n).sqrt()


def jacobian_singular_values(
    model: nn.Module,
    x: Tensor,
    *,
    output: Output = "logit",
    start: nn.Module | str | None = None,
    end: nn.Module | str | None = None,
) -> Tensor:
    """The singular values of J for every example, largest first, computed in float64.

    All near 1 is dynamical isometry (Saxe, McClelland and Ganguli, ICLR 2014).

    Args:
        model: from a batch to outputs; taken in evaluation mode.
        x: (N, ...) inputs.
        output: derivatives of the network's outputs as they are, or of their softmax.
        start: the layer by whose output to differentiate; the network's input if `None`.
        end: the layer whose output to differentiate; the network's output if `None`.

    Returns:
        (N, smaller of the two sizes), float64.

    Raises:
        InputError: as `jacobian`.
    """
    return torch.linalg.svdvals(jacobian(model, x, output=output, start=start, end=end).double())


def _ends(
    model: nn.Module, x: Tensor, output: Output, start: nn.Module | str | None, end: nn.Module | str | None
) -> tuple[Tensor, Tensor]:
    """Both ends of the derivative, with the graph between them, inside of `unchanged`."""
    if output not in ("logit", "probability"):
        raise InputError(f'output must be "logit" or "probability", not {output!r}')
    if output == "probability" and end is not None:
        raise InputError('output="probability" is of the whole network: leave out end=')
    if x.ndim == 0 or not len(x):
        raise InputError(f"x needs at least one example; its shape is {tuple(x.shape)}")
    model.eval()
    per_example_only(model)
    x = suited(model, x).detach()
    if start is None:
        inside = x.requires_grad_(True)
        given = inside.clone()  # a network that works in place changes the copy
    else:
        with torch.no_grad(), tap(model, start) as tapped:
            model(x)
        inside, given = tapped.output.detach().clone().requires_grad_(True), x
    if end is None:
        out = model(given) if start is None else _replaced(model, given, start, inside)
    else:
        with tap(model, end, replace=lambda found: found.clone()) as reached:
            _ = model(given) if start is None else _replaced(model, given, start, inside)
        out = reached.output
    return inside, out.softmax(1) if output == "probability" else out


def _replaced(model: nn.Module, x: Tensor, start: nn.Module | str, inside: Tensor) -> Tensor:
    with tap(model, start, replace=lambda _: inside.clone()):
        return model(x)


def _products(outputs: Tensor, inside: Tensor, vectors: Tensor) -> Tensor:
    """v^T J for (K, N, out) vectors: (K, N, in)."""
    found = None
    if outputs.requires_grad:
        (found,) = torch.autograd.grad(
            outputs, inside, vectors, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
    if found is None:
        raise InputError("the output does not depend on the input: does the layer `end` stand before `start`?")
    return found.reshape(len(vectors), len(inside), -1)
