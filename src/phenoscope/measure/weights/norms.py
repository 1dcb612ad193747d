"""Norms of the layers, of their way from the initialization, and of all paths through a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.parameters import call, parameter_dict
from ...train.outputs import in_mode, placed

if TYPE_CHECKING:
    import xarray

Spectral = Literal["operator", "matrix"]
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_ROUNDS, _TOLERANCE = 300, 1e-6


def norms(model: nn.Module, x: Tensor, *, spectral: Spectral = "operator") -> xarray.Dataset:
    """Three norms of every layer's weights.

    Args:
        model: a network; parameters with two or more dimensions are its layers, biases are left out.
        x: inputs, of which one is passed through the network: how large a convolution's input is decides its norm.
        spectral: of a convolution: the norm of the linear map that it is, by power iteration ("operator"), or that of
            the kernels as one matrix of rows (out, in * places), which is not the same but faster ("matrix").

    Returns:
        Over `layer`: `spectral`, the largest singular value; `frobenius`; and `two_one`, the sum over output units of
        the Euclidean norm of their weights, which is ||W^T||_{2,1} of Bartlett, Foster and Telgarsky (NeurIPS 2017).
        Layers with values that are not finite have NaN.

    Raises:
        InputError: a network without such parameters.
    """
    return _measured(model, x, spectral, lambda _, weight: weight)


def distances(
    model: nn.Module, init_state: Mapping[str, Tensor], x: Tensor, *, spectral: Spectral = "operator"
) -> xarray.Dataset:
    """The same norms of W - W0, what training has added to every layer.

    Args:
        model: a trained network.
        init_state: its `state_dict` before training.
        x, spectral: as those of `norms`.

    Returns:
        As `norms` does.

    Raises:
        InputError: a state that lacks a layer or has another shape for it.
    """
    check_state(model, init_state)
    return _measured(model, x, spectral, lambda name, weight: weight - init_state[name].to(weight))


def path_norm(model: nn.Module, x: Tensor) -> Tensor:
    """The sum over all paths, from any input to any output, of the product of their squared weights.

    It is the sum of the outputs for an input of ones when every parameter is squared (Neyshabur, Salakhutdinov and
    Srebro, NeurIPS 2015): ReLUs let all pass then. Paths that start at a bias count as well.

    Args:
        model: a network whose layers are linear and whose activations are positively homogeneous; batch normalization
            must be folded into them before (`models.fold_norm`).
        x: inputs, for their shape.

    Returns:
        A scalar; NaN where it is not defined: where the network of squared weights, its biases left out, does not give
        twice as much for twice the input.
    """
    x, _ = placed(x[:1], x.new_zeros(1), model)
    ones = torch.ones_like(x)
    squared = {name: value.square() for name, value in parameter_dict(model, trainable=False).items()}
    unbiased = {name: value * (0 if name.endswith("bias") else 1) for name, value in squared.items()}
    with unchanged(model), in_mode(model, training=False), torch.no_grad():
        once, twice = call(model, unbiased, ones).sum(), call(model, unbiased, 2 * ones).sum()
        total = call(model, squared, ones).sum()
    homogeneous = bool((twice - 2 * once).abs() <= 1e-3 * twice.abs())
    return total if homogeneous and float(total) > 0 else torch.full_like(total, torch.nan)


def check_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Whether a state has a tensor of the same shape for every parameter of the network.

    Raises:
        InputError: it does not.
    """
    for name, value in model.named_parameters():
        if name not in state:
            raise InputError(f"init_state lacks {name!r}: give the model's state_dict as it was before training")
        if state[name].shape != value.shape:
            raise InputError(f"{name!r} has shape {tuple(state[name].shape)} in init_state, now {tuple(value.shape)}")


def _measured(model: nn.Module, x: Tensor, spectral: str, of: Any) -> xarray.Dataset:
    import xarray

    if spectral not in ("operator", "matrix"):
        raise InputError(f'spectral must be "operator" or "matrix", not {spectral!r}')
    weights = {name: value for name, value in parameter_dict(model, trainable=False).items() if value.ndim >= 2}
    if not weights:
        raise InputError("the model has no weights: no parameter with two or more dimensions")
    inputs = _inputs_of_convolutions(model, x) if spectral == "operator" else {}
    rows = [_three(of(name, weight), inputs.get(name)) for name, weight in weights.items()]
    table = torch.tensor(rows, dtype=torch.float64).numpy()
    columns = ("spectral", "frobenius", "two_one")
    names = [name.removesuffix(".weight") for name in weights]
    return xarray.Dataset({key: ("layer", table[:, i]) for i, key in enumerate(columns)}, {"layer": names})


def _three(weight: Tensor, convolution: tuple[nn.Module, Tensor] | None) -> tuple[float, float, float]:
    if not bool(weight.isfinite().all()):
        return torch.nan, torch.nan, torch.nan
    matrix = weight.flatten(1)
    largest = torch.linalg.matrix_norm(matrix, 2) if convolution is None else _operator_norm(weight, *convolution)
    return float(largest), float(matrix.norm()), float(matrix.norm(dim=1).sum())


def _operator_norm(weight: Tensor, module: Any, like: Tensor) -> Tensor:
    """The largest singular value of a convolution without its bias, on inputs like this, by power iteration."""
    values = {"weight": weight} if module.bias is None else {"weight": weight, "bias": torch.zeros_like(module.bias)}
    start = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    with torch.enable_grad():  # the map is linear, so that its transpose, taken once, is the same everywhere
        transpose: Any = vjp(lambda v: functional_call(module, values, (v,)), start)[1]
    direction, size = start / start.norm(), start.new_zeros(())
    with torch.no_grad():
        for _ in range(_ROUNDS):
            (back,) = transpose(functional_call(module, values, (direction,)))
            before, size = size, back.norm().sqrt()  # ||A^T A v|| tends to the square of the singular value
            if float(size) == 0 or float((size - before).abs()) <= _TOLERANCE * float(size):
                break
            direction = back / back.norm()
    return size


def _inputs_of_convolutions(model: nn.Module, x: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Name of a convolution's weight -> a copy of the module, and what comes to it when one example is passed."""
    modules = {f"{name}.weight" if name else "weight": m for name, m in model.named_modules()}
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    handles = []
    for name, module in modules.items():
        if isinstance(module, _CONVOLUTIONS):

            def keep(own: nn.Module, given: Any, name: str = name) -> None:
                found.setdefault(name, (_bare(own), given[0].detach()))

            handles.append(module.register_forward_pre_hook(keep))
    if not handles:
        return {}
    try:
        with unchanged(model), in_mode(model, training=False), torch.no_grad():
            model(placed(x[:1], x.new_zeros(1), model)[0])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _bare(module: nn.Module) -> nn.Module:
    """The module without anybody's hooks."""
    other = copy.copy(module)
    other._forward_hooks, other._forward_pre_hooks = type(module._forward_hooks)(), type(module._forward_pre_hooks)()
    return other
