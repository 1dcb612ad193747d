"""How nearly a network trains like its linearization."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import train
from ...core.errors import InputError
from ...core.parameters import parameter_dict
from ...core.random import child_seeds
from ...kernels.drift import ntk_drift
from ...kernels.linearize import linearize

if TYPE_CHECKING:
    import xarray


def lazy_report(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    x: Tensor,
    *,
    steps: int,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    batch_size: int | None = None,
    at: int | Sequence[int] = 1,
    kernel_at: Sequence[int] | None = None,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Train a copy of a network and its linearization side by side, on the same batches with the same optimizer.

    Wide networks are lazy (Lee, Xiao, Schoenholz et al., NeurIPS 2019): with n their width, the distance between the
    two, the relative change of parameters of hidden layers and that of the tangent kernel are O(n^-1/2) in the NTK
    parametrization. Outputs are compared on other inputs than those of training, and over time: training losses agree
    trivially once both are near zero.

    Args:
        model: the network at its start; copies of it are trained. The linearization is that of evaluation mode.
        data: `(x, y)` to train on.
        x: (N, ...) inputs on which the two are compared.
        steps: updates.
        optimizer: makes an optimizer of parameters.
        loss_fn: from outputs and labels to the loss.
        batch_size: examples in a batch; all of them if `None`.
        at: steps at which to compare; an integer k is every k steps and the last.
        kernel_at: steps at which to compute the tangent kernel on `x`; the start and the end if `None`; none if empty.
        generator: what shuffles batches.

    Returns:
        Over `step`: `outputs` and `linear_outputs` (N, C), `deviation`, the root mean square of their difference, and
        `parameter_change`, |w_t - w_0| / |w_0| of every `parameter` (absolute where that starts at zero). Over
        `kernel_step`: `kernel_change`, |Theta_t - Theta_0|_F / |Theta_0|_F. Over `loss_step`: `loss` and `linear_loss`
        before every update.

    Raises:
        InputError: what `train.fit`, `kernels.linearize` and `kernels.empirical_ntk` refuse, or kernel steps beyond
            the training.
    """
    import xarray

    kept = [0, steps] if kernel_at is None else sorted({0, *kernel_at} if kernel_at else set())
    if any(step < 0 or step > steps for step in kept):
        raise InputError(f"kernel_at must lie between 0 and {steps}, not {tuple(kernel_at or ())}")
    (seed,) = child_seeds(generator, 1)
    trained, linear = copy.deepcopy(model), linearize(model)
    start = {name: value.clone() for name, value in parameter_dict(model).items()}
    sizes = {name: float(value.norm()) or 1.0 for name, value in start.items()}

    def change(network: nn.Module) -> Tensor:
        moved = parameter_dict(network)
        return torch.stack([(moved[name] - value).norm() / sizes[name] for name, value in start.items()])

    def outputs(network: nn.Module) -> Tensor:
        return train.outputs(network, x).reshape(len(x), -1)

    common: dict[str, Any] = {
        "steps": steps, "optimizer": optimizer, "loss_fn": loss_fn, "batch_size": batch_size, "generator": seed,
    }  # fmt: skip
    run = train.fit(
        trained, data, **common, watch=train.Watch({"outputs": outputs, "change": change}, at=at),
        states=train.States(at=kept) if kept else None,
    )  # fmt: skip
    other = train.fit(linear, data, **common, watch=train.Watch({"outputs": outputs}, at=at))
    ours, theirs = (fit.watched["outputs"].values for fit in (run, other))
    report = xarray.Dataset(
        {
            "outputs": (("step", "example", "output"), ours),
            "linear_outputs": (("step", "example", "output"), theirs),
            "deviation": ("step", np.sqrt(((ours - theirs) ** 2).mean((1, 2)))),
            "parameter_change": (("step", "parameter"), run.watched["change"].values),
            "loss": ("loss_step", run.history.loss.values),
            "linear_loss": ("loss_step", other.history.loss.values),
        },
        {"step": run.watched.step.values, "parameter": list(start), "loss_step": run.history.step.values},
    )
    if kept:
        drift = ntk_drift(trained, run.states, x)
        report["kernel_change"] = ("kernel_step", drift.drift.values)
        report = report.assign_coords(kernel_step=drift.step.values)
    return report
