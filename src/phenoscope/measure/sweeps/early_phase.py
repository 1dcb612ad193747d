"""What happens in the first steps of training: telemetry of weights, gradients and curvature."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.parameters import weight_names
from ...core.random import child_seeds
from ...data.batches import Data, batches
from ...landscape import top_eigenvalues
from ...train.fit import Fit
from ...train.outputs import placed
from ...train.states import States
from ...train.watch import Watch
from ..weights.motion import weight_motion

Loss = Callable[[Any, Any], Tensor]


def early_phase(
    model: nn.Module,
    data: Data,
    fit: Callable[..., Fit],
    *,
    steps: int,
    at: Iterable[int] | None = None,
    test: Data | None = None,
    loss_fn: Loss = functional.cross_entropy,
    batch_size: int = 64,
    gradient_batches: int = 8,
    curvature: bool = False,
    generator: torch.Generator | int | None = None,
) -> Fit:
    """Train a network and follow its weights and gradients at steps that lie dense in the beginning.

    The telemetry of Frankle, Schwab and Morcos, "The Early Phase of Neural Network Training" (ICLR 2020, section 3):
    gradients are largest and signs change fastest in the first few steps.

    Args:
        model: the network at its initialization; trained in place.
        data: what `fit` takes.
        fit: trains a network: `fit(model, data, steps=, generator=, watch=, states=, log=)`, usually a
            `functools.partial` of `train.fit`.
        steps: T, how many updates.
        at: the steps to look after; 0, 1, 2, 4, 8 ... and T unless said. 0 and T are always among them.
        test: further data to score the network on.
        loss_fn: from outputs and labels to their mean loss.
        batch_size: examples in a batch whose gradient is taken.
        gradient_batches: how many such batches to look at, the same at every step; a loader's own come as they are.
        curvature: whether to find the largest eigenvalue of the loss's Hessian, too, on the data of these batches.
        generator: the order of the examples, and the batches for gradients.

    Returns:
        The training. Its `states` are those of the steps looked after; its `watched` holds over `step` and `layer`
        (the weights by name and, last, `"all"`) what `weight_motion` gives, with `path` summed over every single
        update, and

        - `gradient`: the mean of |g| over weights and batches, g the gradient of a batch in training mode.

        Over `step` alone, `train_loss` and, where labels are classes, `train_accuracy`; `test_loss`, `test_accuracy`
        with `test`; `top_eigenvalue` with `curvature`.

    Raises:
        InputError: no steps, steps to look after that the training does not have, or a network without weights.
    """
    if steps < 1 or gradient_batches < 1:
        raise InputError(f"steps={steps} and gradient_batches={gradient_batches} must be at least 1")
    moments = {2**power for power in range(steps.bit_length())} if at is None else {int(step) for step in at}
    moments = {0, *moments, steps}
    if max(moments) > steps or min(moments) < 0:
        raise InputError(f"at holds steps from 0 to {steps}, not {min(moments)} to {max(moments)}")
    names = weight_names(model)
    if not names:
        raise InputError(f"{type(model).__name__} has no weight of two or more dimensions to follow")
    order, choice = child_seeds(generator, 2)

    def sample() -> Iterable[Any]:
        return itertools.islice(batches(data, batch_size, generator=choice, shuffle=True), gradient_batches)

    path = _Path(model, names)
    observers: dict[str, Callable[[nn.Module], Any]] = {
        "path": lambda _: path.length,
        "gradient": lambda model: _gradients(model, names, sample(), loss_fn),
        "train": lambda model: _scores(model, data, loss_fn, batch_size),
    }
    if test is not None:
        observers["test"] = lambda model: _scores(model, test, loss_fn, batch_size)
    if curvature:
        observers["top_eigenvalue"] = lambda model: top_eigenvalues(
            model, loss_fn, list(sample()), tolerance=1e-3, generator=choice
        )[0]  # fmt: skip
    trained = fit(
        model, data, steps=steps, watch=Watch(observers, at=moments), states=States(moments), log=path, generator=order
    )
    motion = weight_motion(trained.states, names=names)
    found = motion.assign(gradient=(("step", "layer"), trained.watched.gradient.values))
    found["path"] = ("step", "layer"), trained.watched.path.values
    found["detour"] = (found.path / found.from_start).where(found.from_start > 0)
    for part in ("train", "test"):
        if part in trained.watched:
            scores = trained.watched[part].values
            found[f"{part}_loss"] = "step", scores[:, 0]
            if scores.shape[1] > 1:
                found[f"{part}_accuracy"] = "step", scores[:, 1]
    if curvature:
        found["top_eigenvalue"] = "step", trained.watched.top_eigenvalue.values
    return dataclasses.replace(trained, watched=found)


class _Path:
    """The length of the path so far, by layer and in all, told after every update."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.weights = [model.get_parameter(name) for name in names]
        self.before = [weight.detach().clone() for weight in self.weights]
        self.length = torch.zeros(len(names) + 1, dtype=torch.float64)

    @torch.no_grad()
    def __call__(self, **_: Any) -> None:
        squares = torch.stack(
            [(weight - before).square().sum() for weight, before in zip(self.weights, self.before, strict=True)]
        ).double()
        self.length = self.length.to(squares.device) + torch.cat([squares, squares.sum()[None]]).sqrt()
        for weight, before in zip(self.weights, self.before, strict=True):
            before.copy_(weight)


def _gradients(model: nn.Module, names: list[str], sample: Iterable[Any], loss_fn: Loss) -> Tensor:
    """The mean of |g| over batches, by layer and in all."""
    weights = [model.get_parameter(name) for name in names]
    sizes = torch.tensor([weight.numel() for weight in weights], dtype=torch.float64)
    total, count = torch.zeros(len(names), dtype=torch.float64), 0
    devices = [weights[0].device] if weights[0].device.type == "cuda" else []
    with unchanged(model), torch.random.fork_rng(devices=devices), torch.enable_grad():
        model.train()
        for x, y in sample:
            x, y = placed(x, y, model)
            slopes = torch.autograd.grad(loss_fn(model(x), y), weights, allow_unused=True, materialize_grads=True)
            total += torch.stack([slope.abs().sum().double() for slope in slopes]).cpu()
            count += 1
    return torch.cat([total / sizes, (total.sum() / sizes.sum())[None]]) / count


def _scores(model: nn.Module, data: Data, loss_fn: Loss, batch_size: int) -> Tensor:
    """Mean loss and, where labels are classes, accuracy."""
    total: Tensor | float = 0.0
    count = 0
    for x, y in batches(data, max(batch_size, 256)):
        x, y = placed(x, y, model)
        outputs = model(x)
        values = [len(x) * loss_fn(outputs, y).double()]
        if not y.is_floating_point() and outputs.ndim == 2 and y.ndim == 1:
            values.append((outputs.argmax(1) == y).double().sum())
        total = total + torch.stack(values)
        count += len(x)
    assert isinstance(total, Tensor)
    return total / count
