"""The gradient with respect to the input, by itself and times the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.taps import rows_at_once
from ..baseline import Baseline, baseline_for
from ..score import Output, Target, explaining, gradients, real_input, score_of


def saliency(
    model: nn.Module, x: Tensor, target: Target = None, *, output: Output = "logit", chunk: int | None = None
) -> Tensor:
    """The absolute gradient |dF/dx| of a score (Simonyan, Vedaldi, Zisserman, 2013, section 3).

    Args:
        model: from a batch to scores (N, C); it is left as it was found.
        x: inputs (N, ...), real.
        target: `None` for the network's decision, a class, (N,) classes, or a function from outputs to (N,).
        output: what F is taken from: "logit", "probability", or a function of the outputs.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        (N, ...) of the shape of `x`, not negative.

    Raises:
        InputError: inputs that are not real numbers, or a target that the outputs do not have.
    """
    return _gradient(model, x, target, output, chunk)[1].abs()


def gradient_x_input(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.0,
    output: Output = "logit",
    chunk: int | None = None,
) -> Tensor:
    """The gradient of a score times the input's difference from a baseline, (x - x0) * dF/dx.

    After Shrikumar, Greenside, Shcherbina, Kundaje, "Not Just a Black Box" (2016). It adds up to the change of the
    score where the network is homogeneous between x0 and x, as one of rectified units without biases is from 0.

    Args:
        model: from a batch to scores (N, C); it is left as it was found.
        x: inputs (N, ...), real.
        target: `None` for the network's decision, a class, (N,) classes, or a function from outputs to (N,).
        baseline: x0: a number, a tensor, "blur" or "mean".
        output: what F is taken from: "logit", "probability", or a function of the outputs.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        (N, ...) of the shape of `x`, signed.

    Raises:
        InputError: inputs that are not real numbers, a target that the outputs do not have, or a baseline that does
            not fit.

    Examples:
        >>> net = nn.Linear(2, 1)
        >>> _ = net.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> gradient_x_input(net, torch.tensor([[3.0, 5.0]]))
        tensor([[ 6., -5.]])
    """
    x, gradient = _gradient(model, x, target, output, chunk)
    return (x - baseline_for(x, baseline)) * gradient


def _gradient(model: nn.Module, x: Tensor, target: Target, output: Output, chunk: int | None) -> tuple[Tensor, Tensor]:
    with explaining(model):
        x = real_input(model, x)
        score = score_of(model, x, target, output, chunk=chunk)
        rows = torch.arange(len(x), device=x.device)
        size = rows_at_once(x, chunk)
        parts = [gradients(model, score, part, at)[1] for part, at in zip(x.split(size), rows.split(size), strict=True)]
    return x, torch.cat(parts)
