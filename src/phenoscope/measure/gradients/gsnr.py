"""How much the gradients of single examples agree, parameter by parameter, and what one step is worth on new data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.gradients import examples_at_once, per_example_gradients
from ...core.parameters import flatten, parameter_dict
from ...data.batches import Data, batches
from ...train.outputs import placed


@dataclasses.dataclass(frozen=True, eq=False)
class GSNR:
    """Moments of the gradients of single examples, by parameter, in double precision.

    Attributes:
        mean: parameter name -> mean of the gradients.
        variance: their variance, unbiased; 0 where a parameter has the same gradient for all examples.
        n: how many examples there were.
    """

    mean: Mapping[str, Tensor]
    variance: Mapping[str, Tensor]
    n: int

    @property
    def plain(self) -> dict[str, Tensor]:
        """mean^2 / variance, the paper's estimator: about 1 / n where there is no signal, infinite where all agree."""
        return {name: _ratio(self.mean[name].square(), self.variance[name]) for name in self.mean}

    @property
    def corrected(self) -> dict[str, Tensor]:
        """(mean^2 - variance / n) / variance, not below 0."""
        return {name: _ratio(signal, self.variance[name]) for name, signal in self.signal.items()}

    @property
    def signal(self) -> dict[str, Tensor]:
        """mean^2 - variance / n, not below 0: the squared gradient of the population."""
        return {name: (self.mean[name].square() - self.variance[name] / self.n).clamp(min=0) for name in self.mean}

    @property
    def dead(self) -> int:
        """How many parameters no example has a gradient for; their ratios are 0."""
        return sum(int(((self.mean[n] == 0) & (self.variance[n] == 0)).sum()) for n in self.mean)

    def average(self, *, corrected: bool = False) -> float:
        """The mean ratio over all parameters, those that are dead included."""
        return float(flatten(self.corrected if corrected else self.plain).mean())


def gsnr(
    model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], data: Data, *, chunk: int | None = None
) -> GSNR:
    """The gradient signal-to-noise ratio of every parameter at the weights as they are.

    For the gradients g_i of single examples, r_j = E[g_ij]^2 / Var[g_ij] over the examples (Liu, Jiang, Bai, Chen and
    Wang, "Understanding Why Neural Networks Generalize Well Through GSNR of Parameters", ICLR 2020, section 2). A
    parameter with a high ratio is pushed the same way by all examples; batches in place of examples would make the
    variance too small by their size.

    Args:
        model: from a batch to outputs; in the mode in which it is.
        loss_fn: from outputs and labels to a mean loss; it is called on batches of one.
        data: `(x, y)`, or a loader of such batches.
        chunk: examples at a time.

    Returns:
        Mean and variance of all trainable parameters, and the ratios made of them.

    Raises:
        InputError: fewer than two examples, batch normalization in training mode, or data that `data.batches` refuses.

    Examples:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> nn.init.zeros_(model.weight) is model.weight
        True
        >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [3.0]])
        >>> found = gsnr(model, nn.functional.mse_loss, (x, y))  # gradients -2 and -6
        >>> found.average(), found.average(corrected=True)
        (2.0, 1.5)
    """
    size = chunk or examples_at_once(parameter_dict(model), 2)  # the gradients, and their distances from the mean
    n, mean, scatter = 0, dict[str, Tensor](), dict[str, Tensor]()
    for batch in batches(data, size):
        for x, y in zip(*(part.split(size) for part in batch), strict=True):  # a loader's batches may be larger
            found = per_example_gradients(model, loss_fn, placed(x, y, model), chunk=size)
            total = n + len(x)
            for name, rows in found.items():
                variance, own = (part.double() for part in torch.var_mean(rows, 0, correction=0))
                if n == 0:
                    mean[name], scatter[name] = own, variance * len(x)
                else:  # Chan, Golub and LeVeque (1983): pairwise, without cancellation
                    shift = own - mean[name]
                    scatter[name] += variance * len(x) + shift.square() * (n * len(x) / total)
                    mean[name] += shift * (len(x) / total)
            n = total
    if n < 2:
        raise InputError(f"gradients scatter from two examples on; there are {n}")
    return GSNR(mean, {name: value / (n - 1) for name, value in scatter.items()}, n)


def osgr(moments: GSNR | Sequence[GSNR], *, n: int | None = None, corrected: bool = True) -> float:
    """The one-step generalization ratio that the moments predict.

    One step of gradient descent on n examples lowers their mean loss by the rate times sum_j (gt_j^2 + rho_j^2 / n), on
    average, and that of new examples by the rate times sum_j gt_j^2, to first order, gt and rho^2 being the mean and
    the variance of the gradient over all examples there could be. The ratio is

        sum_j gt_j^2 / sum_j (gt_j^2 + rho_j^2 / n) = 1 - (1 / n) sum_j W_j / (r_j + 1 / n)

    with r_j the gradient signal-to-noise ratio and W_j the share of parameter j in the decrease (Liu, Jiang, Bai, Chen
    and Wang, ICLR 2020, section 2). It holds where the weights do not depend on the examples much: early in training.

    Args:
        moments: of one network, or of several that are trained on as many sets, whose decreases are added up.
        n: examples that the step is made on; as many as the moments are of, unless said.
        corrected: take mean^2 - variance / m for gt^2, not below 0, m being the examples that the moments are of. The
            plain mean^2 is too large by what the mean scatters.

    Returns:
        From 0 to 1: 1 if nothing is lost on new data; NaN where all gradients are zero.

    Raises:
        InputError: no moments, or a number of examples under 1.
    """
    networks = [moments] if isinstance(moments, GSNR) else list(moments)
    if not networks or (n is not None and n < 1):
        raise InputError(f"moments of at least one network and n of at least 1 are needed, not {len(networks)} and {n}")
    gained = lost = 0.0
    for each in networks:
        signal = each.signal if corrected else {name: value.square() for name, value in each.mean.items()}
        gained += float(flatten(signal).sum())
        lost += float(flatten(each.variance).sum()) / (n or each.n)
    return gained / (gained + lost) if gained + lost > 0 else float("nan")


def _ratio(signal: Tensor, variance: Tensor) -> Tensor:
    """0 where both are zero."""
    return torch.where(signal == 0, signal, signal / variance)
