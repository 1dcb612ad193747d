"""The two kernels of an infinitely wide fully connected network."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import Activation, Function, activation
from .dense_rules import Activate, Affine, Linear
from .infinite import Kernel
from .layer_rules import Source
from .program import Program, Step
from .result import LimitKernels
from .state import Rule


def mlp_kernels(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    act: str | Function | Activation = "relu",
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    last_bias: bool = True,
) -> LimitKernels:
    """The NNGP and tangent kernels of an infinitely wide network in the NTK parametrization, by recursion.

    Sigma = sigma_w2 x.x' / d + sigma_b2 and Theta = Sigma at the first layer; then, with (u, v) of covariance Sigma,
    Theta <- Theta sigma_w2 E f'(u) f'(v) + Sigma', Sigma' = sigma_w2 E f(u) f(v) + sigma_b2 (Jacot, Gabriel and
    Hongler, NeurIPS 2018, proposition 1 and theorem 1; Lee, Bahri, Novak et al., ICLR 2018). These are the limits for
    `models.mlp(parametrization="ntk")`; the NNGP kernel is also that of the standard parametrization.

    Args:
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        depth: number of hidden layers; 0 is a linear model.
        act: the activation (`theory.activation`).
        sigma_w2: variance of weights times fan-in.
        sigma_b2: variance of biases.
        last_bias: whether the last layer has a bias.

    Returns:
        Both kernels in float64, where the inputs are.

    Raises:
        InputError: a negative depth, or inputs of different sizes.
    """
    act = activation(act)
    if depth < 0:
        raise InputError(f"depth must not be negative, not {depth}")
    a = x1.reshape(len(x1), -1).double()
    b = None if x2 is None else x2.reshape(len(x2), -1).double()
    if b is not None and a.shape[1] != b.shape[1]:
        raise InputError(f"the two sets of inputs have {a.shape[1]} and {b.shape[1]} features")
    steps = [Step("inputs", "the inputs", Source(-1), ("x",))]

    def then(rule: Rule, name: str) -> None:
        steps.append(Step(name, name, rule, (steps[-1].name,)))

    for layer in range(depth + 1):
        if layer:
            then(Activate(act), f"activation {layer}")
        law = Affine(sigma_w2, sigma_b2 if last_bias or layer < depth else 0.0)
        then(Linear(law, None, 1, "a layer"), f"layer {layer + 1}")
    program = Program("x", (), tuple(steps), steps[-1].name)
    return Kernel(program, dtype=torch.float64, examples_at_once=None)(a, b)
