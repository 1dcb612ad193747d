"""Bias and variance of a network over independent training sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ...train import fleet
from ...train.schedule import Schedule

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]
Loss = Literal["squared", "cross_entropy"]


def bias_variance(
    make_model: Callable[..., nn.Module],
    train: Pair,
    test: Pair,
    *,
    steps: int,
    optimizer: Callable[..., torch.optim.Optimizer],
    splits: int = 2,
    repeats: int = 1,
    inits: int = 1,
    loss: Loss = "squared",
    jackknife: bool = False,
    batch_size: int | None = 64,
    schedule: Schedule | None = None,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train a network on each of several disjoint training sets and split its test loss into bias and variance.

    After Yang, Yu, You, Steinhardt and Ma, "Rethinking Bias-Variance Trade-off for Generalization of Neural Networks"
    (ICML 2020, section 3 and algorithm 1): `repeats` times the training data are cut at random into `splits` parts of
    equal size, and on every part networks are trained whose initialization is their own. All train as one fleet.

    Args:
        make_model: a network factory, called through `train.build`.
        train: what is cut into training sets; the labels may be noisy.
        test: what the networks are tested on.
        steps: updates of each training.
        optimizer: a factory from parameters, such as `functools.partial(torch.optim.Adam, lr=5e-3)`.
        splits: parts of a cut, at least 2; one network sees 1/splits of the data.
        repeats: how often the data are cut anew.
        inits: networks on each part; from 2 on, the variance that initialization causes is told from that of sampling.
        loss: "squared", distance to the one-hot label summed over classes, or "cross_entropy": what networks are
            trained with, and what is split.
        jackknife: as in `bias_variance_from_outputs`.
        batch_size: `None` is the full batch at every step.
        schedule: of the learning rate.
        generator: what parts, networks and orders are drawn from. The cuts depend on it alone, so that networks of
            another size see the same training sets.
        device: where to train.

    Returns:
        What `bias_variance_from_outputs` gives.

    Raises:
        InputError: as `bias_variance_from_outputs` does, or fewer examples than parts.

    Examples:
        >>> import functools
        >>> from phenoscope import data, models
        >>> split = data.digits()
        >>> found = bias_variance(
        ...     models.mlp, split.train, split.test, splits=4, steps=20, generator=0,
        ...     optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
        ... ).mean()
        >>> bool(abs(found.bias + found.variance - found.risk) < 1e-12)
        True
    """
    outputs = outputs_by_split(
        make_model, train, test[0], splits=splits, repeats=repeats, inits=inits, loss=loss, steps=steps,
        optimizer=optimizer, batch_size=batch_size, schedule=schedule, generator=generator, device=device,
        classes=1 + int(max(train[1].max(), test[1].max())),
    )  # fmt: skip
    return bias_variance_from_outputs(outputs, test[1], loss=loss, jackknife=jackknife)


def bias_variance_from_outputs(
    outputs: Tensor, targets: Tensor, *, loss: Loss = "squared", jackknife: bool = False
) -> xarray.Dataset:
    """Bias, variance and their sum, the risk, of every test example, from what independently trained networks say.

    Squared loss, of outputs f_m over networks m: the variance is sum_m |f_m - mean f|^2 / (M - 1), the risk the mean of
    |f_m - y|^2, and the squared bias their difference, which has no bias of its own and may be slightly negative.
    Cross-entropy, of probabilities p_m: the mean prediction is q, proportional to exp(mean_m ln p_m), the variance is
    mean_m KL(q || p_m), the bias -ln q(y), and their sum the mean of -ln p_m(y), exactly (Yang, Yu, You, Steinhardt and
    Ma, ICML 2020, section 3 and appendix; Heskes, Neural Computation 1998).

    Args:
        outputs: raw scores (networks, N, C), one network for each training set. Or (repeats, parts, N, C): variances
            are taken within a repetition and averaged. Or (repeats, parts, inits, N, C), several networks on each
            training set, for the squared loss: the variance is then its sampling and its initialization part together.
        targets: labels (N,), or numbers (N, C) for the squared loss.
        loss: "squared" or "cross_entropy".
        jackknife: take the leave-one-out estimate of the variance of cross-entropy, which with M networks comes out too
            small by a factor of about 1 - 1/M, and the bias as the rest of the risk. (Of the squared loss both
            estimates are one.)

    Returns:
        `bias`, `variance` and `risk` over `example`, float64; with several networks on a training set also
        `initialization`, the variance over them, and `sampling`, that of their means without what initialization
        leaves in it. `.mean()` gives the numbers of the whole test set.

    Raises:
        InputError: fewer than two networks, shapes that do not match, scores that are not finite, or several
            initializations with cross-entropy.

    Examples:
        >>> three = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]])
        >>> found = bias_variance_from_outputs(three, torch.tensor([0]))
        >>> [round(float(found[name][0]), 6) for name in ("bias", "variance", "risk")]
        [0.333333, 0.5, 0.833333]
    """
    import xarray

    if loss not in ("squared", "cross_entropy"):
        raise InputError(f'loss must be "squared" or "cross_entropy", not {loss!r}')
    if outputs.ndim not in (3, 4, 5):
        raise InputError(f"outputs must be (networks, N, C) or (repeats, parts, N, C), not {tuple(outputs.shape)}")
    several = outputs.ndim == 5 and outputs.shape[2] > 1
    if several and loss == "cross_entropy":
        raise InputError("variance is told apart by its causes for the squared loss only: give one network a part")
    f = (outputs[None] if outputs.ndim == 3 else outputs).detach().double()
    f = f if f.ndim == 5 else f.unsqueeze(2)
    if f.shape[1] < 2:
        raise InputError("variance over training sets needs networks from at least two of them")
    if targets.shape not in (f.shape[3:4], f.shape[3:]) or not f.numel():
        raise InputError(f"{f.shape[3]} examples of {f.shape[4]} outputs need as many labels, not {targets.shape}")
    named = targets.ndim == 1  # not numbers, but classes
    if named and (targets.is_floating_point() or not 0 <= int(targets.min()) <= int(targets.max()) < f.shape[4]):
        raise InputError(f"labels must be classes from 0 to {f.shape[4] - 1}, whole numbers")
    if not torch.isfinite(f).all():
        raise InputError("some outputs are not finite: leave out networks whose training diverged")
    y = targets.to(f.device)
    found = _squared(f, y) if loss == "squared" else _cross_entropy(f[:, :, 0], y, jackknife)
    if several:
        inside = f.var(2).sum(-1).mean((0, 1))
        found |= {"initialization": inside, "sampling": found["variance"] - inside}
    return xarray.Dataset({name: ("example", value.cpu().numpy()) for name, value in found.items()})


def _squared(f: Tensor, y: Tensor) -> dict[str, Tensor]:
    """f (R, k, I, N, C). Var = E_data Var_init + Var_data E_init; the latter without the noise of a mean of I."""
    truth = functional.one_hot(y, f.shape[-1]).double() if y.ndim == 1 else y.double()
    risk = (f - truth).square().sum(-1).mean((0, 1, 2))
    variance = f.mean(2).var(1).sum(-1).mean(0)
    count = f.shape[2]
    if count > 1:
        variance = variance + (1 - 1 / count) * f.var(2).sum(-1).mean((0, 1))
    return {"bias": risk - variance, "variance": variance, "risk": risk}


def _cross_entropy(f: Tensor, y: Tensor, jackknife: bool) -> dict[str, Tensor]:
    """f (R, k, N, C). With q = exp(mean ln p) / Z, mean KL(q || p_m) is -ln Z."""
    if y.ndim != 1:
        raise InputError("cross-entropy needs labels (N,)")
    logs = f.log_softmax(-1)
    risk = -logs.gather(-1, y.expand(*logs.shape[:2], -1)[..., None])[..., 0].mean((0, 1))
    mean = logs.mean(1)
    variance = -mean.logsumexp(-1)
    if jackknife:
        count = logs.shape[1]
        without = (count * mean[:, None] - logs) / (count - 1)
        variance = count * variance + (count - 1) * without.logsumexp(-1).mean(1)
    variance = variance.mean(0)
    return {"bias": risk - variance, "variance": variance, "risk": risk}


def outputs_by_split(
    make_model: Callable[..., nn.Module],
    train: Pair,
    x_test: Tensor,
    *,
    splits: int,
    repeats: int,
    inits: int,
    loss: Loss,
    classes: int,
    generator: torch.Generator | int | None,
    **recipe: Any,
) -> Tensor:
    """What networks trained on disjoint parts of the data say about test inputs: (repeats, splits, inits, N, C)."""
    size = len(train[0]) // max(1, splits)
    if splits < 2 or repeats < 1 or inits < 1 or size < 1:
        raise InputError(
            f"splits must be at least 2 and no more than the {len(train[0])} examples, repeats and inits at least 1, "
            f"not {splits}, {repeats} and {inits}"
        )
    cuts, seeds = child_seeds(generator, 2)
    rng = seeded(cuts)
    parts = torch.stack([torch.randperm(len(train[0]), generator=rng)[: size * splits] for _ in range(repeats)])
    rows = parts.view(repeats * splits, size).repeat_interleave(inits, 0)
    batch = recipe.pop("batch_size")
    trained = fleet(
        make_model, train, members=len(rows), rows=rows, generator=child_seeds(seeds, len(rows)),
        loss_fn=squared_error if loss == "squared" else functional.cross_entropy, num_classes=classes,
        batch_size=None if batch is None else min(batch, size), **recipe,
    )  # fmt: skip
    found = trained.outputs(x_test)
    return found.view(repeats, splits, inits, *found.shape[1:])


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Squared distance to the one-hot labels, summed over classes, mean over points."""
    return (outputs - functional.one_hot(y, outputs.shape[-1])).square().sum(-1).mean()
