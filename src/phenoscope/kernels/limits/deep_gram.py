"""The Gram matrix of one hidden layer of a deep network: of a network as it stands, and infinitely wide."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.taps import Layer, layers
from ...theory.gaussian.activations import Activation, Function, activation
from ...theory.gaussian.moments import gaussian_moments
from ..empirical import empirical_ntk


def deep_gram(
    x: Tensor,
    *,
    depth: int,
    act: str | Function | Activation = "tanh",
    arch: Literal["mlp", "resnet"] = "mlp",
    c_res: float = 1.0,
) -> Tensor:
    """K^(H): the Gram matrix of the last hidden layer's weights in an infinitely wide network of H hidden layers.

    With weights from N(0, 1), f = a . x^(H) and c = 1 / E phi(g)^2 of a standard normal g, a plain network is
    x^(h) = sqrt(c / m) phi(W_h x^(h-1)), and a residual one has that first layer and then
    x^(h) = x^(h-1) + c_res / (H sqrt(m)) phi(W_h x^(h-1)). From K^(0) = x.x', with (u, v) of covariance K^(h-1):

        plain:     K^(h) = c E phi(u) phi(v),   K^(H) = c K^(H-1) E phi'(u) phi'(v)
        residual:  K^(h) = K^(h-1) + s (b E phi(v) + b' E phi(u)) + s^2 E phi(u) phi(v),   s = c_res / H
                   b^(h) = b^(h-1) + s E phi(u),   b^(1) = sqrt(c) E phi(u),   K^(H) = s^2 K^(H-1) E phi'(u) phi'(v)

    (Du, Lee, Li, Wang and Zhai, ICML 2019, equations 6 and 8). It is positive definite for a smooth activation unless
    two inputs are parallel, and gradient descent on a network wide enough converges at the rate of its smallest
    eigenvalue.

    Args:
        x: (n, ...) inputs; the theorem's are of norm 1.
        depth: H, hidden layers.
        act: the activation (`theory.activation`); the theorem's are smooth.
        arch: "mlp" or "resnet".
        c_res: scale of the residual branches.

    Returns:
        (n, n), float64.

    Raises:
        InputError: a depth under 1, another architecture, inputs without features or not finite, or an activation
            whose mean square is zero.
    """
    act = activation(act)
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")
    if arch not in ("mlp", "resnet"):
        raise InputError(f'arch must be "mlp" or "resnet", not {arch!r}')
    flat = x.detach().flatten(1).double() if x.ndim > 1 else x
    if x.ndim < 2 or not torch.isfinite(flat).all():
        raise InputError(f"inputs must be finite and (n, ...); their shape is {tuple(x.shape)}")
    power = float(gaussian_moments(act, 1.0, power=2))
    if not power > 0:
        raise InputError(f"activation {act.name} is zero on all of its inputs")
    c, k = 1 / power, flat @ flat.T
    b = torch.zeros_like(k[0])
    for layer in range(1, depth):
        plain = layer == 1 or arch == "mlp"
        pair = _pairs(act, k)
        if plain:
            b = c**0.5 * gaussian_moments(act, k.diagonal())
            k = c * pair
        else:
            s, mean = c_res / depth, gaussian_moments(act, k.diagonal())
            k = k + s * (b[:, None] * mean + mean[:, None] * b) + s**2 * pair
            b = b + s * mean
    scale = c if depth == 1 or arch == "mlp" else (c_res / depth) ** 2
    return scale * k * _pairs(act, k, derivative=True)


def last_hidden_gram(model: nn.Module, x: Tensor, *, layer: Layer | None = None) -> Tensor:
    """G_ij = <df(x_i)/dW, df(x_j)/dW>: the part of the tangent kernel that one layer's weights make.

    The loss of gradient descent falls by the sum of all layers' Gram matrices; that of the last hidden layer alone
    bounds it from below (Du, Lee, Li, Wang and Zhai, ICML 2019, section 4). Computed in float64 on a copy of the
    network, because smallest eigenvalues are lost in single precision.

    Args:
        model: from a batch to outputs (N, C), in evaluation mode if it has dropout or batch normalization.
        x: (n, ...) inputs.
        layer: a module with weights, or its dotted name; the last but one of those with weights if `None`. Its biases
            do not count.

    Returns:
        (n C, n C), float64, an example's outputs side by side: (n, n) of a network with one output.

    Raises:
        InputError: no such layer, one without weights, a network with only one layer, or what `empirical_ntk` refuses.
    """
    twin = copy.deepcopy(model).double().requires_grad_(False)
    if layer is None:
        weighted = list(layers(twin).values())
        if len(weighted) < 2:
            raise InputError("the network has no hidden layer: say which layer=")
        chosen = weighted[-2]
    else:
        names = list(layers(model, layer))
        if len(names) != 1:
            raise InputError(f"{layer!r} means {len(names)} layers; give one")
        chosen = twin.get_submodule(names[0])
    weights = [parameter for parameter in chosen.parameters(recurse=False) if parameter.ndim > 1]
    if not weights:
        raise InputError(f"this {type(chosen).__name__} has no weights of its own")
    for weight in weights:
        weight.requires_grad_(True)
    return as_matrix(empirical_ntk(twin, x))


def as_matrix(kernel: Tensor) -> Tensor:
    """(n, n, C, C) as (n C, n C), an example's outputs side by side."""
    n, m, c, _ = kernel.shape
    return kernel.transpose(1, 2).reshape(n * c, m * c)


def _pairs(act: Activation, k: Tensor, *, derivative: bool = False) -> Tensor:
    q = k.diagonal()
    limit = torch.sqrt(q[:, None] * q)  # rounding must not carry a correlation beyond 1
    return gaussian_moments(act, q[:, None], k.clamp(-limit, limit), q[None, :], derivative=derivative)
