"""The randomization test: what a network fits when labels or inputs lose their meaning."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds
from ...data.noise import label_noise, randomize
from ...train import Fit, Watch, accuracy, build

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]
Kind = Literal["true", "random", "shuffled_pixels", "random_pixels", "gaussian"] | float
KINDS: tuple[Kind, ...] = ("true", 0.5, "random", "shuffled_pixels", "random_pixels", "gaussian")
_INPUTS = ("shuffled_pixels", "random_pixels", "gaussian")


def randomization_test(
    make_model: Callable[..., nn.Module],
    train: Pair,
    test: Pair,
    fit: Callable[..., Fit],
    *,
    kinds: Sequence[Kind] = KINDS,
    repeats: int = 5,
    every: int = 10,
    fitted: float = 0.99,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train one architecture in one way on true data, on random labels and on inputs without meaning.

    After Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep learning requires rethinking generalization"
    (ICLR 2017, section 2). A network that fits random labels has the capacity to memorize: what it generalizes to on
    true labels is then not explained by its size. Everything is made random once in a repetition, before training, and
    stays so; a repetition starts all kinds from one initialization and takes the examples in one order.

    Args:
        make_model: a network factory, called through `train.build`.
        train: inputs (N, ...) and labels (N,).
        test: the same to test on. It stays as it is, but for "shuffled_pixels", whose permutation it shares.
        fit: trains a network: `fit(model, data, watch=, generator=)`, usually a `functools.partial` of `train.fit`
            with a `stop_at`, so that a network ends when it fits.
        kinds: "true" data; a share of labels that are replaced by classes drawn from all (some get their own back);
            "random", all of them; or inputs randomized with true labels: "shuffled_pixels", "random_pixels", "gaussian"
            (`data.randomize`).
        repeats: how often everything is drawn again.
        every: steps between two looks at the training accuracy.
        fitted: the training accuracy that counts as fitted.
        generator: what everything is drawn from. What a repetition draws does not depend on `kinds`.
        device: where to train, by default CUDA if there is one.

    Returns:
        Over `kind` and `repeat`:

        - `train_accuracy`: on what was trained on, after the last step.
        - `test_accuracy`: on true labels, after the last step.
        - `fit_steps`: the first look at which the network fitted; NaN if it never did.
        - `steps`: the last step.
        - `curve`: the training accuracy over `step`, NaN after the last one.

    Raises:
        InputError: another kind, the same twice, no kinds or repetitions, or a `fitted` outside (0, 1].
    """
    import xarray

    _check(kinds, repeats, fitted)
    classes = 1 + int(max(train[1].max(), test[1].max()))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = []
    for seed in child_seeds(generator, repeats):
        model_seed, data_seed, fit_seed = child_seeds(seed, 3)
        row = []
        for kind in kinds:
            own, tested = randomized(train, test, kind, classes=classes, generator=data_seed)
            model = build(make_model, shape=train[0].shape[1:], num_classes=classes, generator=model_seed).to(place)
            watch = Watch({"curve": functools.partial(accuracy, data=own)}, at=every)
            with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
                torch.manual_seed(fit_seed)  # what dropout draws from
                done = fit(model, own, watch=watch, generator=fit_seed)
            row.append(_outcome(done, tested, fitted))
        found.append(xarray.concat(row, "kind", join="outer"))
    table = xarray.concat(found, "repeat", join="outer")
    return table.assign_coords(kind=[str(kind) for kind in kinds], repeat=range(repeats))


def randomized(
    train: Pair, test: Pair, kind: Kind, *, classes: int, generator: torch.Generator | int | None = None
) -> tuple[Pair, Pair]:
    """What a kind makes of the training and of the test part."""
    x, y = train
    if kind == "true":
        return train, test
    if kind == "shuffled_pixels":  # one permutation for both
        both = randomize((torch.cat([x, test[0]]), torch.cat([y, test[1]])), kind, generator=generator)[0]
        return (both[: len(x)], y), (both[len(x) :], test[1])
    if isinstance(kind, str) and kind in _INPUTS:
        return randomize(train, kind, generator=generator), test  # type: ignore[arg-type]
    share = 1.0 if isinstance(kind, str) else float(kind)
    return (x, label_noise(y, share, classes=classes, generator=generator)[0]), test


def _outcome(done: Fit, test: Pair, fitted: float) -> Any:
    import xarray

    curve = done.watched.curve
    reached = curve.step.values[curve.values >= fitted]
    return xarray.Dataset(
        {
            "train_accuracy": float(curve[-1]),
            "test_accuracy": accuracy(done.model, test),
            "fit_steps": float(reached[0]) if len(reached) else float("nan"),
            "steps": int(curve.step[-1]),
            "curve": curve,
        }
    )


def _check(kinds: Sequence[Kind], repeats: int, fitted: float) -> None:
    if not kinds or repeats < 1 or len({str(kind) for kind in kinds}) < len(kinds):
        raise InputError(f"at least one repetition of at least one kind is needed, each kind once; got {tuple(kinds)}")
    for kind in kinds:
        known = kind in ("true", "random", *_INPUTS) if isinstance(kind, str) else 0 <= kind <= 1
        if not known:
            raise InputError(
                f"a kind is a share of random labels from 0 to 1, true, random, {', '.join(_INPUTS)}, not {kind!r}"
            )
    if not 0 < fitted <= 1:
        raise InputError(f"fitted is an accuracy above 0 and at most 1, not {fitted}")
