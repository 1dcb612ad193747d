"""DeepLIFT: propagate differences from a reference instead of gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.taps import rows_at_once
from ..baseline import Baseline, baseline_for
from ..score import Target, explaining, real_input, score_of
from .attribution import Attribution
from .reveal_cancel import part_multipliers
from .rules import rescale, ruled_multipliers

_RULES = ("rescale", "reveal-cancel", "genomics")


def deeplift(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.0,
    rule: str = "rescale",
    chunk: int | None = None,
) -> Attribution:
    """Contributions m * (x - x0), with multipliers m chained through differences instead of derivatives.

    After Shrikumar, Greenside, Kundaje, "Learning Important Features Through Propagating Activation Differences" (ICML
    2017), sections 3.2 to 3.5. Linear operations have their own multipliers. Under the rescale rule a nonlinearity has
    m = (f(z) - f(z0)) / (z - z0); under reveal-cancel the positive and the negative part of every difference have their
    own. A maximum over a pooling window passes its change to the unit that wins where the maximum is larger. The
    contributions add up to the change of the logit.

    Args:
        model: from a batch to scores (N, C), before the softmax; it is left as it was found. For the rescale rule
            anything made of linear operations, elementwise nonlinearities and max pooling, as modules or as functions;
            for the other two a tree of `nn.Sequential`.
        x: inputs (N, ...), real.
        target: `None` for the network's decision, a class, (N,) classes, or a linear function from outputs to (N,).
        baseline: x0: a number, a tensor, "blur" or "mean".
        rule: "rescale", "reveal-cancel", or "genomics": rescale after convolutions, reveal-cancel after dense layers.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        Values of the shape of `x`, change of the logit and gap (N,).

    Raises:
        InputError: an operation without a rule, by its name; an unknown rule; or what the other attributions refuse.

    Examples:
        >>> class Saturating(nn.Module):
        ...     def forward(self, x):
        ...         return 1 - torch.relu(1 - x)
        >>> deeplift(Saturating(), torch.tensor([[2.0]])).values
        tensor([[1.]])
    """
    if rule not in _RULES:
        raise InputError(f"rule must be one of {', '.join(map(repr, _RULES))}, not {rule!r}")
    values, changes = [], []
    with explaining(model):
        x = real_input(model, x)
        x0 = baseline_for(x, baseline)
        score = score_of(model, x, target, "logit", chunk=chunk)
        for rows in torch.arange(len(x), device=x.device).split(rows_at_once(x, chunk)):

            def logit(outputs: Tensor, rows: Tensor = rows) -> Tensor:
                return score(outputs, rows)

            if rule == "rescale":
                multipliers, change = ruled_multipliers(model, x[rows], x0[rows], logit, rescale)
                contributions = multipliers * (x[rows] - x0[rows])
            else:
                contributions, change = part_multipliers(
                    model, x[rows], x0[rows], logit, after_convolutions=rule == "reveal-cancel"
                )
            values.append(contributions)
            changes.append(change)
    contributions, change = torch.cat(values), torch.cat(changes)
    return Attribution(contributions, change, contributions.reshape(len(x), -1).sum(1) - change)


def pair_contribution(
    model: nn.Module,
    x: Tensor,
    c_from: int,
    c_to: int,
    *,
    baseline: Baseline = 0.0,
    rule: str = "rescale",
    chunk: int | None = None,
) -> Tensor:
    """What speaks for one class rather than another: the contributions to logit `c_from` minus those to `c_to`.

    The score by which Shrikumar, Greenside, Kundaje (ICML 2017, section 4.1) choose the pixels to erase.

    Args:
        model: as for `deeplift`.
        x: inputs (N, ...), real.
        c_from, c_to: the two classes.
        baseline: x0: a number, a tensor, "blur" or "mean".
        rule: "rescale", "reveal-cancel" or "genomics".
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        (N, ...) of the shape of `x`, signed.

    Raises:
        InputError: as `deeplift` does.
    """

    def difference(outputs: Tensor) -> Tensor:
        for given in (c_from, c_to):
            if not 0 <= given < outputs.shape[1]:
                raise InputError(f"there is no class {given} among {outputs.shape[1]}")
        return outputs[:, c_from] - outputs[:, c_to]

    return deeplift(model, x, difference, baseline=baseline, rule=rule, chunk=chunk).values
