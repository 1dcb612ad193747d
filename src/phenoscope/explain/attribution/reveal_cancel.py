"""DeepLIFT with positive and negative parts of every difference kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from .rules import NEAR, rescale, winning

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SAME = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_MAXIMA: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
)


def part_multipliers(
    model: nn.Module, x: Tensor, x0: Tensor, score: Callable[[Tensor], Tensor], *, after_convolutions: bool
) -> tuple[Tensor, Tensor]:
    """Contributions of the inputs under the reveal-cancel rule.

    Every difference is D = D+ + D-. Linear layers send the parts where the signs of their weights send them. A
    nonlinearity g with reference r gives each part the mean of its effect when it comes first and when it comes second,
    D+_out = 1/2 [g(r + D+) - g(r)] + 1/2 [g(r + D- + D+) - g(r + D-)] and D-_out likewise.

    Args:
        model: a tree of `nn.Sequential`, in evaluation mode.
        x: inputs (n, ...).
        x0: baselines (n, ...).
        score: linear, from the model's outputs to (n,).
        after_convolutions: whether nonlinearities that follow a convolution are treated so, too, or are rescaled.

    Returns:
        Contributions (n, ...) and the change of the score (n,).

    Raises:
        InputError: a layer that has no rule.
    """
    plus, minus = ((x - x0).clamp(min=0).requires_grad_(), (x - x0).clamp(max=0).requires_grad_())
    reference, p, n, revealing = x0, plus, minus, True
    for layer in _leaves(model):
        if isinstance(layer, (nn.Linear, *_CONVOLUTIONS)):
            revealing = after_convolutions or isinstance(layer, nn.Linear)
        p, n = _through(layer, reference, p, n, revealing)
        with torch.no_grad():
            reference = layer(reference.clone())
    after = score(reference + p + n)
    change = (after - score(reference)).detach()
    m_plus, m_minus = torch.autograd.grad(after.sum(), (plus, minus))
    return (m_plus * plus + m_minus * minus).detach(), change


def _leaves(model: nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, nn.Sequential):
        for layer in model:
            yield from _leaves(layer)
    else:
        yield model


def _through(layer: nn.Module, r: Tensor, p: Tensor, n: Tensor, revealing: bool) -> tuple[Tensor, Tensor]:
    """The parts behind a layer; their graphs hold the multipliers."""
    if isinstance(layer, nn.Linear):
        return _by_sign(lambda part, w: functional.linear(part, w), layer.weight.detach(), p, n)
    if isinstance(layer, _CONVOLUTIONS):
        return _by_sign(lambda part, w: layer._conv_forward(part, w, None), layer.weight.detach(), p, n)
    if isinstance(layer, _BATCH_NORMS) and layer.running_var is not None:
        scale = (layer.running_var + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight.detach())
        return _by_sign(lambda part, w: part * w, scale.reshape(-1, *[1] * (p.ndim - 2)), p, n)
    if isinstance(layer, (*_SAME, *_MEANS)):
        return layer(p), layer(n)
    if type(layer) in _MAXIMA:
        pool = getattr(functional, f"max_pool{_MAXIMA[type(layer)]}d")

        def f(z: Tensor, return_indices: bool) -> Tensor:
            settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            return pool(z, *settings, ceil_mode=layer.ceil_mode, return_indices=return_indices)

        slopes, taken = winning(f, (r + p + n).detach(), r, _MAXIMA[type(layer)])
        return slopes * taken(p), slopes * taken(n)
    if isinstance(layer, _POINTWISE):
        at_p, at_n = p.detach(), n.detach()

        def g(z: Tensor) -> Tensor:
            return layer(z.clone())

        if not revealing:
            slope = rescale(g, r + at_p + at_n, r)
            return slope * p, slope * n
        with torch.no_grad():
            none, one, other, both = g(r), g(r + at_p), g(r + at_n), g(r + at_p + at_n)
        return (
            _with_slope((one - none + both - other) / 2, p, at_p),
            _with_slope((other - none + both - one) / 2, n, at_n),
        )
    raise InputError(
        f"no reveal-cancel rule for {type(layer).__name__}: the network must be made of nn.Sequential, dense and "
        "convolutional layers, batch norm, pooling and elementwise nonlinearities"
    )


def _by_sign(apply: Callable[[Tensor, Tensor], Tensor], w: Tensor, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    up, down = w.clamp(min=0), w.clamp(max=0)
    return apply(p, up) + apply(n, down), apply(p, down) + apply(n, up)


def _with_slope(value: Tensor, part: Tensor, at: Tensor) -> Tensor:
    """A value whose derivative is value / part; 0 where the part is."""
    near = at.abs() < NEAR
    slope = torch.where(near, torch.zeros_like(value), value / torch.where(near, torch.ones_like(at), at))
    return value + slope * (part - at)
