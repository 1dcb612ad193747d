"""Whether an attribution accounts for the whole change of the output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.taps import rows_at_once
from ..baseline import Baseline, baseline_for
from ..score import Output, Score, Target, explaining, real_input, score_of


def completeness(
    model: nn.Module,
    x: Tensor,
    attribution: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.0,
    output: Output = "logit",
    chunk: int | None = None,
) -> Tensor:
    """By how much an attribution misses the change of the score: sum_i A_i - (F(x) - F(x0)).

    The axiom of Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), section 3.

    Args:
        model: from a batch to scores (N, C); it is left as it was found.
        x: inputs (N, ...), real.
        attribution: (N, ...), one row an input.
        target: `None` for the network's decision at `x`, a class, (N,) classes, or a function from outputs to (N,).
        baseline: x0: a number, a tensor, "blur" or "mean".
        output: what F is taken from: "logit", "probability", or a function of the outputs.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        (N,), in the units of the score; 0 is complete.

    Raises:
        InputError: an attribution with another number of rows, or what the attributions themselves refuse.
    """
    with explaining(model), torch.no_grad():
        x = real_input(model, x)
        if attribution.ndim == 0 or len(attribution) != len(x):
            raise InputError(f"{len(x)} inputs need as many attributions; their shape is {tuple(attribution.shape)}")
        score = score_of(model, x, target, output, chunk=chunk)
        change = scores_at(model, score, x, chunk) - scores_at(model, score, baseline_for(x, baseline), chunk)
        return attribution.to(change.device).reshape(len(x), -1).sum(1).to(change.dtype) - change


def scores_at(model: nn.Module, score: Score, x: Tensor, chunk: int | None = None) -> Tensor:
    """F (N,) at points that belong to the examples in order."""
    rows = torch.arange(len(x), device=x.device)
    size = rows_at_once(x, chunk)
    with torch.no_grad():
        return torch.cat([score(model(part), at) for part, at in zip(x.split(size), rows.split(size), strict=True)])
