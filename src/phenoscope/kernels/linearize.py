"""A network's first-order Taylor expansion in its parameters: trained like a network, or solved in closed form."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.gradients import jvp
from ..core.guard import unchanged
from ..core.parameters import call, parameter_dict
from ..core.taps import suited
from .descent import checked_times, progress, squares_rate
from .empirical import empirical_ntk

Loss = Literal["half_sum", "half_mean", "mse"]


class LinearizedModel(nn.Module):
    """f(x; w0) + <grad f(x; w0), d>, affine in the trainable offsets d, which start at zero.

    Attributes:
        offsets: d, in the order of the network's trainable parameters.
        names: those parameters' names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        parameters = parameter_dict(model)
        self.names = list(parameters)
        with unchanged(model):
            network = copy.deepcopy(model).requires_grad_(False).eval()
        network.zero_grad(set_to_none=True)
        self.network = network
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros_like(value)) for value in parameters.values()])

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> outputs of the network's shape."""
        start = dict(self.network.named_parameters())
        point = {name: start[name] for name in self.names}
        direction = dict(zip(self.names, self.offsets, strict=True))

        value, change = jvp(lambda values: call(self.network, values, x), point, direction)
        return value + change

    def train(self, mode: bool = True) -> LinearizedModel:
        """The expansion is that of the network in evaluation mode, and stays so."""
        super().train(mode)
        self.network.eval()
        return self


def linearize(model: nn.Module) -> LinearizedModel:
    """The first-order Taylor expansion of a network around its parameters (Lee, Xiao, Schoenholz et al., NeurIPS 2019).

    At the start it has the network's outputs and gradients. Trained by any optimizer and loss, it tells what the
    network would do if it were lazy: very wide ones are. The derivative along the offsets is taken by forward mode, so
    that no Jacobian is stored.

    Args:
        model: a network of differentiable operations; it is copied and left as it is. Batch normalization and dropout
            are taken as in evaluation.

    Returns:
        A network whose trainable parameters are the offsets.

    Raises:
        InputError: a network without trainable parameters.
    """
    return LinearizedModel(model)


def linear_prediction(
    model: nn.Module,
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    t: float | Sequence[float] | Tensor,
    *,
    lr: float,
    loss: Loss = "half_sum",
    flow: bool = True,
) -> Tensor:
    """What full-batch descent on squared error would make of the linearized network, in closed form.

    f_t(x) = f_0(x) - Theta(x, X) Theta(X, X)^-1 (I - exp(-lr Theta t)) (f_0(X) - y) with the tangent kernel Theta at
    the start (Lee et al., NeurIPS 2019, equations 10 and 11); for steps of gradient descent in place of gradient flow,
    (I - lr Theta)^t stands for the exponential, and the result is exact for `linearize(model)`. Computed in float64 by
    an eigendecomposition; directions of eigenvalue zero move by lr t, as they should.

    Args:
        model: a network with outputs (N, C), in the state around which it is linearized.
        x_train: inputs.
        y_train: (N, C) targets, or (N,) of a network with one output.
        x_test: where to predict.
        t: times, or numbers of steps.
        lr: the learning rate.
        loss: which loss the rate belongs to: "half_sum" is sum (f - y)^2 / 2 over examples and outputs, "half_mean"
            this divided by N, "mse" the mean over both without the half, as `torch.nn.functional.mse_loss` has it.
        flow: gradient flow; otherwise discrete steps, whose numbers must be whole.

    Returns:
        (T, n_test, C) for a sequence of times, (n_test, C) for a single one; float64.

    Raises:
        InputError: targets of another shape than the outputs, an unknown loss, or times that are negative or, without
            `flow`, not whole.
    """
    start, start_test = (_outputs(model, x) for x in (x_train, x_test))
    target = y_train.to(start).reshape(len(y_train), -1)
    if target.shape != start.shape:
        raise InputError(f"targets have shape {tuple(y_train.shape)}, outputs {tuple(start.shape)}")
    n, count = start.shape
    rate = squares_rate(loss, lr, n=n, outputs=count)
    times = checked_times(t, flow=flow)
    gram, cross = (kernel_matrix(model, a, b) for a, b in ((x_train, None), (x_test, x_train)))
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    weights = progress(values.clamp_min(0), rate, times.to(values), flow=flow)
    moved = vectors @ (weights * (vectors.T @ (start - target).reshape(-1))).T
    found = start_test - (cross @ moved).T.reshape(len(times), *start_test.shape)
    return found[0] if torch.as_tensor(t).ndim == 0 else found


def kernel_matrix(model: nn.Module, x1: Tensor, x2: Tensor | None = None) -> Tensor:
    """The full tangent kernel as a float64 matrix (n1 C, n2 C), outputs of one example side by side."""
    kernel = empirical_ntk(model, x1, x2).double()
    n1, n2, count, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(n1 * count, n2 * count)


def _outputs(model: nn.Module, x: Tensor) -> Any:
    with unchanged(model), torch.no_grad():
        return model.eval()(suited(model, x)).double().reshape(len(x), -1)
