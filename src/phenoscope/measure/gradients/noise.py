"""How noisy the gradient of a mini-batch is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from ...data.batches import Data
from .gsnr import gsnr


@dataclasses.dataclass(frozen=True)
class GradientNoise:
    """What the gradients of single examples scatter by.

    Attributes:
        trace: of their covariance, summed over all parameters, unbiased.
        squared_norm: of the mean gradient, without what the scatter adds to it; may be negative.
        scale: trace / squared_norm, the simple noise scale: the batch size whose gradient has as much noise as signal;
            NaN where the squared norm is not positive.
        n: how many examples there were.
    """

    trace: float
    squared_norm: float
    scale: float
    n: int


def gradient_noise(
    model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], data: Data, *, chunk: int | None = None
) -> GradientNoise:
    """The noise of stochastic gradients at the weights as they are.

    From the gradient g_i of every example, by `torch.func`: mean m = sum g_i / n, trace = sum |g_i - m|^2 / (n - 1),
    squared norm |m|^2 - trace / n, and their ratio, the simple noise scale of McCandlish, Kaplan, Amodei et al., "An
    Empirical Model of Large-Batch Training" (2018, equation 2.9). The gradient of a batch of B of the n examples drawn
    without replacement scatters by trace / B (n - B) / n; training by SGD at rate eta and momentum mu then has the
    temperature eta / (B (1 - mu)) (Smith, Elsen and De, "On the Generalization Benefit of Noise in Stochastic Gradient
    Descent", ICML 2020, section 2).

    Args:
        model: from a batch to outputs; in the mode in which it is.
        loss_fn: from outputs and labels to a mean loss; it is called on batches of one.
        data: `(x, y)`, or a loader of such batches.
        chunk: examples at a time.

    Returns:
        Plain numbers; sums are taken in float64.

    Raises:
        InputError: fewer than two examples, batch normalization in training mode, or data that `data.batches` refuses.

    Examples:
        >>> import torch
        >>> model = nn.Linear(1, 1, bias=False)
        >>> nn.init.zeros_(model.weight) is model.weight
        True
        >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [3.0]])
        >>> gradient_noise(model, nn.functional.mse_loss, (x, y))  # gradients -2 and -6
        GradientNoise(trace=8.0, squared_norm=12.0, scale=0.6666666666666666, n=2)
    """
    found = gsnr(model, loss_fn, data, chunk=chunk)
    trace = sum(float(value.sum()) for value in found.variance.values())
    squared = sum(float(value.square().sum()) for value in found.mean.values()) - trace / found.n
    return GradientNoise(trace, squared, trace / squared if squared > 0 else float("nan"), found.n)
