"""Double descent: test error by width, by training time and by the number of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ...data.noise import label_noise as noisy
from ...train import Fit, Watch, accuracy, build, fleet
from ...train.schedule import Schedule

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]


def double_descent(
    make_model: Callable[..., nn.Module],
    train: Pair,
    test: Pair,
    *,
    widths: Sequence[int],
    steps: int,
    optimizer: Callable[..., torch.optim.Optimizer],
    ns: Sequence[int] | None = None,
    label_noise: float | Sequence[float] = 0.2,
    repeats: int = 5,
    at: Iterable[int] | None = None,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    batch_size: int | None = 64,
    schedule: Schedule | None = None,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train networks of several widths on noisy labels and test them on clean ones.

    After Nakkiran, Kaplun, Bansal, Yang, Barak and Sutskever, "Deep Double Descent" (ICLR 2020): test error peaks where
    the network can just about fit its training set, whether width (model-wise), training time (epoch-wise) or the
    number of samples (sample-wise) varies. Each repetition draws its training samples, replaces a share `label_noise`
    of the labels once and for all by classes drawn from all, and uses both for every width and, as far as they reach,
    for every n. There is no early stopping; the networks of one width and n train as one fleet.

    Args:
        make_model: a factory that takes `width=`.
        train: the pool that training samples are drawn from.
        test: what the networks are tested on, with the labels as they are.
        widths: of the networks.
        steps: updates of each training, enough for the smallest loss that the width allows: narrow networks that have
            not converged make a false peak.
        optimizer: a factory from parameters, such as `functools.partial(torch.optim.Adam, lr=5e-3)`.
        ns: numbers of training samples; all of the pool if nothing is said.
        label_noise: the share of labels that are replaced, or several; chance gives some their own class back.
        repeats: how many times everything is drawn again.
        at: steps to test after, for the curves over time; only after the last step if nothing is said.
        loss_fn: from outputs and labels to their mean loss.
        batch_size: `None` is the full batch at every step.
        schedule: of the learning rate.
        generator: what everything is drawn from.
        device: where to train.

    Returns:
        Dimensions `noise`, `n`, `width`, `repeat`, `step`; shares of 1, and losses as `loss_fn` gives them:

        - `train_error`: on the noisy labels that were trained on.
        - `test_error`, `test_loss`: on clean labels.

    Raises:
        InputError: no widths, an n that the pool does not have, `label_noise` outside [0, 1], or no repetitions.
    """
    import numpy
    import xarray

    ns = (len(train[0]),) if ns is None else tuple(ns)
    widths = tuple(widths)
    moments = (steps,) if at is None else tuple(sorted({int(step) for step in at}))
    if not widths or not ns or repeats < 1:
        raise InputError("double descent needs at least one width, one n and one repetition")
    if min(ns) < 1 or max(ns) > len(train[0]):
        raise InputError(f"n must lie between 1 and the {len(train[0])} samples of the pool, not {min(ns)}..{max(ns)}")
    noises = tuple(label_noise) if isinstance(label_noise, Sequence) else (label_noise,)
    if not noises or not all(0 <= share <= 1 for share in noises):
        raise InputError(f"label_noise is a share from 0 to 1, or several, not {label_noise!r}")
    seeds = child_seeds(generator, repeats)
    classes = 1 + int(max(train[1].max(), test[1].max()))
    rows, labels = drawn(train[1], classes=classes, noises=noises, seeds=seeds)
    watch = Watch(observers(train[0], test, loss_fn), at=moments)
    shape = (len(noises), len(ns), len(widths), repeats, len(moments))
    found = {name: numpy.empty(shape) for name in ("train_error", "test_error", "test_loss")}
    for i, n in enumerate(ns):
        for j, width in enumerate(widths):
            trained = fleet(
                functools.partial(make_model, width=width), train, members=len(rows), steps=steps, optimizer=optimizer,
                loss_fn=loss_fn, batch_size=None if batch_size is None else min(batch_size, n), schedule=schedule,
                labels=labels, rows=rows[:, :n], watch=watch, generator=seeds * len(noises), device=device,
                shape=tuple(train[0].shape[1:]), num_classes=classes,
            )  # fmt: skip
            seen = trained.watched
            decisions = torch.from_numpy(seen["decisions"].transpose("member", "step", ...).values)
            tested = seen["tested"].transpose("member", "step", ...).values
            values = (train_error(decisions, rows[:, :n], labels), tested[..., 0], tested[..., 1])
            for name, value in zip(found, values, strict=True):
                found[name][:, i, j] = value.reshape(len(noises), repeats, len(moments))
    dims = ("noise", "n", "width", "repeat", "step")
    coordinates: dict[str, Any] = {"noise": list(noises), "n": list(ns), "width": list(widths), "step": list(moments)}
    variables = {name: (dims, values) for name, values in found.items()}
    return xarray.Dataset(variables, coordinates | {"repeat": numpy.arange(repeats)})


def effective_model_complexity(
    make_model: Callable[..., nn.Module],
    sampler: Callable[[int, int], Pair],
    fit: Callable[..., Fit],
    *,
    ns: Sequence[int],
    eps: float = 0.1,
    draws: int = 3,
    generator: torch.Generator | int | None = None,
) -> int:
    """The largest number of samples that a way of training fits: mean training error over draws at most `eps`.

    EMC of Nakkiran, Kaplun, Bansal, Yang, Barak and Sutskever, "Deep Double Descent" (ICLR 2020), definition 1. It is
    found by bisection over a grid, on the premise that training error grows with n.

    Args:
        make_model: makes a network; called through `train.build`.
        sampler: `sampler(n, generator) -> (x, y)` draws n samples.
        fit: `fit(model, data, generator=)` trains the network, such as a `functools.partial` of `train.fit`.
        ns: the grid, best in equal ratios.
        eps: the mean training error, as a share of 1, that still counts as fitting.
        draws: how many samples of each size are trained on.
        generator: what samples and networks are drawn from.

    Returns:
        The largest n of the grid that is fitted; 0 if none is. If it is the last of the grid, the truth may be larger.

    Raises:
        InputError: an empty grid, an n under 1, `eps` outside [0, 1) or no draws.
    """
    grid = sorted({int(n) for n in ns})
    if not grid or grid[0] < 1:
        raise InputError(f"ns needs at least one number of samples, and none under 1, not {tuple(ns)}")
    if not 0 <= eps < 1 or draws < 1:
        raise InputError(f"eps must be at least 0 and below 1, not {eps!r}, and draws at least 1, not {draws!r}")
    seeds = child_seeds(generator, len(grid) * draws)  # by place: what is drawn does not depend on the bisection's path

    def fitted(place: int) -> bool:
        errors = 0.0
        for seed in seeds[place * draws : (place + 1) * draws]:
            sample_seed, model_seed, fit_seed = child_seeds(seed, 3)
            x, y = sampler(grid[place], sample_seed)
            model = build(make_model, shape=tuple(x.shape[1:]), generator=model_seed)
            fit(model, (x, y), generator=fit_seed)
            errors += 1 - accuracy(model, (x, y))
        return errors / draws <= eps

    below, above = -1, len(grid)  # fitted there, not fitted here
    while above - below > 1:
        middle = (below + above) // 2
        if fitted(middle):
            below = middle
        else:
            above = middle
    return grid[below] if below >= 0 else 0


def drawn(y: Tensor, *, classes: int, noises: Sequence[float], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For each noise and seed an order in which samples are taken, and all labels with noise: (noises x seeds, N)."""
    orders, labels = [], []
    for noise in noises:
        for seed in seeds:
            generator = seeded(seed)
            orders.append(torch.randperm(len(y), generator=generator))
            labels.append(noisy(y.cpu(), noise, classes=classes, generator=generator)[0])
    return torch.stack(orders), torch.stack(labels)


def observers(x: Tensor, test: Pair, loss_fn: Callable[[Any, Any], Tensor]) -> dict[str, Callable[[nn.Module], Tensor]]:
    """What to follow: decisions on the whole pool, and the pair of error and loss on the test set."""

    def tested(model: nn.Module) -> Tensor:
        x, y = _beside(model, *test)
        outputs = model(x)
        return torch.stack([(outputs.argmax(-1) != y).double().mean(), loss_fn(outputs, y).double()])

    return {"decisions": lambda model: model(*_beside(model, x)).argmax(-1), "tested": tested}


def _beside(model: nn.Module, *tensors: Tensor) -> list[Tensor]:
    device = next(model.parameters()).device
    return [tensor.to(device) for tensor in tensors]


def train_error(decisions: Tensor, rows: Tensor, labels: Tensor) -> Any:
    """The share of its own samples that each member decides otherwise than they are labeled: (M, steps)."""
    wrong = decisions != labels[:, None]
    at = rows[:, None].expand(-1, wrong.shape[1], -1)
    return wrong.gather(2, at).double().mean(2).numpy()
