"""What an ensemble of infinitely wide networks predicts, at any time of its training."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded
from .asked import KernelFunction, asked
from .descent import Times, checked_times, progress, squares_rate
from .entropy_flow import LOSSES, distributions, entropy_rate, entropy_weights
from .regression import checked_targets
from .solve import factor

Loss = Literal["half_sum", "half_mean", "mse", "cross_entropy", "cross_entropy_sum"]


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Mean and covariance over networks, float64; with an axis of times in front where several were asked for.

    Attributes:
        mean: (n_test, ...), of the targets' shape.
        covariance: (n_test, n_test), the same for every output; of cross-entropy (C, n_test, n_test), output by
            output; `None` where it was not asked for.
    """

    mean: Tensor
    covariance: Tensor | None

    @property
    def std(self) -> Tensor:
        """The root of the covariance's diagonal: (n_test,), or (C, n_test).

        Raises:
            InputError: a prediction without covariance.
        """
        if self.covariance is None:
            raise InputError("this prediction was made without covariance")
        return self.covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def predict(
    kernel: KernelFunction,
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    t: Times | None = None,
    *,
    lr: float = 1.0,
    ridge: float = 0.0,
    get: Literal["ntk", "nngp"] = "ntk",
    loss: Loss = "half_sum",
    flow: bool = True,
    covariance: bool = True,
    draws: int = 100,
    generator: torch.Generator | int | None = None,
) -> Prediction:
    """Mean and covariance of infinitely wide networks from random starts, trained for a time t by full-batch descent.

    For squared error in closed form: with Theta the tangent kernel, Q the NNGP kernel, X the training and x the test
    examples and M = Theta_xX Theta^-1 (1 - exp(-lr Theta t)), the mean is M y and the covariance Q_xx + M Q_XX M' -
    M Q_Xx - Q_xX M' (Lee, Xiao, Schoenholz et al., NeurIPS 2019, section 2.3). Steps of descent have
    (1 - lr Theta)^t in place of the exponential. With `get="nngp"` only the last layer trains, Theta = Q and the
    covariance is Q_xx - Q_xX Q^-1 (1 - exp(-2 lr Q t)) Q_Xx: for ever, and with a ridge, the Bayesian posterior under
    noise of that variance. Computed in float64 by eigenvectors; directions of eigenvalue zero, which no prediction
    depends on, are left out.

    For cross-entropy, whose flow has no closed form and no end, outputs at the start are drawn from the NNGP prior,
    each draw follows the flow of its own, and mean and covariance are those over the draws.

    Args:
        kernel: a callable `(x1, x2=None) -> LimitKernels`, as `infinite(network)`.
        x_train: inputs.
        y_train: (n, ...) targets; for cross-entropy whole labels (n,), or (n, C) probabilities.
        x_test: where to predict.
        t: a time or several; without `flow`, numbers of steps; `None` is the end of training.
        lr: the learning rate.
        ridge: added to the diagonal of the training examples' Theta, as a share of its mean.
        get: which kernel trains.
        loss: which loss the rate belongs to: "half_sum" is sum (f - y)^2 / 2 over examples and outputs, "half_mean"
            this divided by n, "mse" and "cross_entropy" what `torch.nn.functional` has under these names, and
            "cross_entropy_sum" the sum over examples.
        flow: gradient flow; otherwise discrete steps.
        covariance: whether to compute it.
        draws: how many starts, for cross-entropy.
        generator: what they are drawn with.

    Returns:
        The mean, and the covariance of the function itself, without noise.

    Raises:
        InputError: something that is no kernel, targets that do not fit, an unknown loss or kernel, bad times, no time
            for cross-entropy, or steps without end at a rate from which they diverge.

    >>> import functools
    >>> from phenoscope import kernels
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> kernel = functools.partial(kernels.mlp_kernels, depth=2, act="erf", sigma_b2=0.1)
    >>> found = predict(kernel, x, x[:, 0], x, t=[0, 1e9])
    >>> found.mean.round(decimals=3).abs()
    tensor([[0., 0., 0.],
            [1., 0., 1.]], dtype=torch.float64)
    >>> found.std.round(decimals=3)[1]
    tensor([0., 0., 0.], dtype=torch.float64)
    """
    if get not in ("ntk", "nngp"):
        raise InputError(f'get must be "ntk" or "nngp", not {get!r}')
    if not 0 <= ridge < float("inf"):
        raise InputError(f"ridge must be a number from 0, not {ridge!r}")
    times = None if t is None else checked_times(t, flow=flow)
    if not len(x_test):
        raise InputError("there is nothing to predict: x_test is empty")
    entropy = loss in LOSSES
    spread = covariance or entropy  # cross-entropy draws from the prior
    names = ("nngp", "ntk") if spread and get == "ntk" else (get,)
    gram = asked(kernel, x_train, None, *names)
    cross = asked(kernel, x_test, x_train, *names)
    last = asked(kernel, x_test, None, "nngp")["nngp"] if spread else cross[get].new_empty(0)
    theta = gram[get] + ridge * gram[get].diagonal().mean() * torch.eye(len(x_train)).to(gram[get])
    if not entropy:
        found = _squares(theta, y_train, gram, cross, last, times, get=get, lr=lr, loss=loss, flow=flow)
    else:
        if times is None:
            raise InputError("cross-entropy has no end of training: give a time t")
        if draws < 2:
            raise InputError(f"draws must be at least 2, not {draws}")
        prior = torch.cat([torch.cat([gram["nngp"], cross["nngp"].T], 1), torch.cat([cross["nngp"], last], 1)])
        y = distributions(checked_targets(theta, y_train, keep=True))
        start = _drawn(prior, draws, y.shape[1], generator).split([len(x_train), len(x_test)])
        rate = entropy_rate(loss, lr, n=len(y))
        weights = entropy_weights(theta, start[0], y, times, rate=rate, flow=flow)
        found = _over_draws(start[1], cross[get], weights, covariance=covariance)
    if times is None or torch.as_tensor(t).ndim == 0:
        return Prediction(found.mean[0], None if found.covariance is None else found.covariance[0])
    return found


def _squares(
    theta: Tensor,
    y_train: Tensor,
    gram: dict[str, Tensor],
    cross: dict[str, Tensor],
    last: Tensor,
    times: Tensor | None,
    *,
    get: str,
    lr: float,
    loss: str,
    flow: bool,
) -> Prediction:
    """Squared error, with an axis of times; the covariance if `last`, the prior at the test examples, is not empty."""
    y = checked_targets(theta, y_train)
    rate = squares_rate(loss, lr, n=len(y), outputs=y.shape[1])
    values, vectors = torch.linalg.eigh((theta + theta.T) / 2)
    values = values.clamp_min(0)
    if times is None and not flow and rate * float(values[-1]) >= 2:
        raise InputError(f"steps diverge from the rate {2 / float(values[-1]) * lr / rate:.4g} on; choose a lower lr")
    turned, along = cross[get] @ vectors, vectors.T @ y
    shares = _shares(values, rate, times, flow)
    mean = torch.stack([(turned * share) @ along for share in shares]).reshape(len(shares), -1, *y_train.shape[1:])
    if not len(last):
        return Prediction(mean, None)
    if get == "nngp":
        doubled = _shares(values, rate, None if times is None else 2 * times, flow)
        spread = torch.stack([last - (turned * share) @ turned.T for share in doubled])
    else:
        spread = last.new_empty(len(shares), *last.shape)
        for found, share in zip(spread, shares, strict=True):
            moved = (turned * share) @ vectors.T
            shared = moved @ cross["nngp"].T
            found.copy_(last + moved @ gram["nngp"] @ moved.T - shared - shared.T)
    return Prediction(mean, _tidy(spread))


def _shares(values: Tensor, rate: float, times: Tensor | None, flow: bool) -> Tensor:
    """(T, E), what of 1 / value has been reached; of the end, the pseudo-inverse."""
    if times is not None:
        return progress(values, rate, times.to(values), flow=flow)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values.max()
    return torch.where(kept, 1 / torch.where(kept, values, torch.ones_like(values)), torch.zeros_like(values))[None]


def _drawn(prior: Tensor, draws: int, outputs: int, generator: torch.Generator | int | None) -> Tensor:
    """(n, draws, outputs) values at the start."""
    generator = seeded(generator)
    noise = torch.randn(len(prior), draws * outputs, generator=generator, dtype=torch.float64, device=generator.device)
    return (factor(prior).lower.tril() @ noise.to(prior.device)).view(len(prior), draws, outputs)


def _over_draws(start: Tensor, cross: Tensor, weights: Tensor, *, covariance: bool) -> Prediction:
    """Mean over draws (T, n_test, C), covariance (T, C, n_test, n_test)."""
    means, spreads = [], []
    for one in weights:
        outputs = start - (cross @ one.reshape(len(one), -1)).view_as(start)
        means.append(outputs.mean(1))
        if covariance:
            off = (outputs - outputs.mean(1, keepdim=True)).permute(2, 0, 1)
            spreads.append(off @ off.mT / (start.shape[1] - 1))
    return Prediction(torch.stack(means), torch.stack(spreads) if covariance else None)


def _tidy(spread: Tensor) -> Tensor:
    """Symmetric, and without the negative variances that rounding makes of zero."""
    spread = (spread + spread.mT) / 2
    spread.diagonal(dim1=-2, dim2=-1).clamp_min_(0)
    return spread
