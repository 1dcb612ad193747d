"""The bench of wide networks: full-batch descent on squared error, by width, beside the tangent kernel.

Losses are sums, sum (f - y)^2 / 2 over examples and outputs, so that the critical rate is 2 / largest eigenvalue.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import data, models, train
from ...core.errors import InputError
from ...kernels.linearize import kernel_matrix

digits = data.digits
standard_mlp = functools.partial(
    models.mlp, depth=2, activation="tanh",
    init=functools.partial(models.init_gaussian, sigma_w2=1.5**2, sigma_b2=0.1**2),
)  # fmt: skip
mlp = functools.partial(standard_mlp, parametrization="ntk")

Pair = tuple[Tensor, Tensor]


def few_examples(lab, dataset, *, n: int, classes: int, seed: int) -> tuple[Pair, Pair]:
    """`n` training and `n` test examples of the first classes, and their labels as one-hot vectors."""
    split = data.load(dataset, generator=lab.seed("split", seed))
    parts = []
    for name, (x, y) in (("training", split.train), ("test", split.test)):
        rows = (y < classes).nonzero().flatten()[:n]
        if len(y[rows].unique()) < classes:
            raise InputError(f"the {name} part has not all of classes 0 to {classes - 1} among its first {n} examples")
        parts.append((x[rows].to(lab.device), functional.one_hot(y[rows], classes).to(lab.device, x.dtype)))
    return parts[0], parts[1]


def network(lab, model, pair: Pair, *, width: int, seed: int) -> nn.Module:
    """The untrained network of a width and a seed, in the dtype of the data."""
    x, y = pair
    built = train.build(
        model, shape=x.shape[1:], num_classes=y.shape[1], generator=lab.seed("network", width, seed), width=width
    )
    return built.to(x.device, x.dtype)


def critical_rate(model: nn.Module, x: Tensor) -> float:
    """2 / lambda_max of the tangent kernel: beyond it, descent on the sum of squares of the linearization diverges."""
    return 2 / float(torch.linalg.eigvalsh(kernel_matrix(model, x))[-1])


def sufficient_rate(model: nn.Module, x: Tensor) -> float:
    """2 / (lambda_min + lambda_max), below which Lee et al. (NeurIPS 2019, theorem 2.1) prove convergence."""
    values = torch.linalg.eigvalsh(kernel_matrix(model, x))
    return 2 / float(values[0].clamp_min(0) + values[-1])


def half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """sum (f - y)^2 / 2 over examples and outputs."""
    return 0.5 * ((outputs - targets) ** 2).sum()


def entropy_sum(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, summed over examples, with one-hot targets."""
    return functional.cross_entropy(outputs, targets, reduction="sum")


def two_layer_relu(features: int, *, width: int, antisymmetric: bool = False, generator: int) -> nn.Sequential:
    """f(x) = sum_r a_r relu(w_r.x) / sqrt(width) in float64: w_r from N(0, I), trained; a_r -1 or 1, fixed.

    Antisymmetric: every unit once more with the other sign of a_r, so that f is zero at the start.
    """
    drawn = torch.Generator().manual_seed(generator)
    half = width // 2 if antisymmetric else width
    w = torch.randn(half, features, dtype=torch.float64, generator=drawn)
    a = 2.0 * torch.randint(2, (1, half), generator=drawn).double() - 1
    if antisymmetric:
        w, a = torch.cat([w, w]), torch.cat([a, -a], 1)
    built = nn.Sequential()
    for name, weight in (("hidden", w), ("out", a / a.shape[1] ** 0.5)):
        layer = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=name == "hidden")
        built.add_module(name, layer)
        if name == "hidden":
            built.add_module("act", nn.ReLU())
    return built
