"""Kernels of a network as it stands: the tangent kernel of its gradients, and the Gram matrix of its features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.gradients import examples_at_once, per_example_jacobians, per_example_only
from ..core.guard import unchanged
from ..core.parameters import parameter_dict
from ..core.taps import rows_at_once, suited
from .layered import Unsuited, layered_ntk

Outputs = Literal["full", "trace"] | int
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)


def empirical_ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    outputs: Outputs = "full",
    method: Literal["auto", "layers", "jacobian"] = "auto",
    chunk: int | None = None,
) -> Tensor:
    """The tangent kernel Theta_ij^ab = sum_p df_a(x_i)/dp df_b(x_j)/dp (Jacot, Gabriel and Hongler, NeurIPS 2018).

    Exact, over all parameters that require gradients. "jacobian" contracts the derivatives of single examples. In a
    layer y = W h + b that every example passes once, their product is (h_i . h_j + 1) (dy_i . dy_j), so that for fully
    connected networks "layers" needs no derivative by parameters at all; it is chosen where it can be.

    Args:
        model: from a batch to outputs (N, C); in evaluation mode if it has dropout or batch normalization.
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        outputs: "full", "trace" for the mean over outputs of Theta^aa, or the number of one output.
        method: how to compute it.
        chunk: examples at a time; chosen by size if `None`.

    Returns:
        (n1, n2, C, C), or (n1, n2) for "trace" and one output; in the model's dtype.

    Raises:
        InputError: a network in which examples of a batch act on one another or that is random, an output that there is
            not, or "layers" for a network that it does not suit.

    Examples:
        >>> empirical_ntk(nn.Linear(2, 1), torch.eye(2), outputs="trace").tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """
    per_example_only(model)
    for name, module in model.named_modules():
        if isinstance(module, _RANDOM) and module.training:
            raise InputError(f"{name or 'the model'} is random in training: call model.eval() first")
    if method not in ("auto", "layers", "jacobian"):
        raise InputError(f'method must be "auto", "layers" or "jacobian", not {method!r}')
    if not len(x1) or (x2 is not None and not len(x2)):
        raise InputError("a kernel needs at least one example on either side")
    parameters = parameter_dict(model)
    x1, x2 = suited(model, x1), None if x2 is None else suited(model, x2)
    count = _output_count(model, x1[:1])
    if not (outputs in ("full", "trace") or (isinstance(outputs, int) and 0 <= outputs < count)):
        raise InputError(f'outputs must be "full", "trace" or a number from 0 to {count - 1}, not {outputs!r}')
    chosen = range(count) if isinstance(outputs, str) else range(outputs, outputs + 1)
    if method != "jacobian":
        try:
            return _shaped(layered_ntk(model, x1, x2, chosen, outputs == "trace", chunk), outputs)
        except Unsuited as reason:
            if method == "layers":
                raise InputError(f"method='layers' does not suit this network: {reason}") from None
    size = chunk or examples_at_once(parameters, len(chosen))
    return _shaped(_by_jacobians(model, x1, x2, chosen, outputs == "trace", size), outputs)


def empirical_nngp(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, layer: nn.Module | str | None = None
) -> Tensor:
    """The Gram matrix of a network's features, K_ij = h(x_i) . h(x_j) / n: its finite-width NNGP kernel.

    The last layer's outputs have this covariance over draws of its weights, up to their variance, and the bias's (Lee,
    Bahri, Novak et al., ICLR 2018).

    Args:
        model: from a batch to outputs.
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        layer: a module, or its dotted name, whose output is taken as h; the input of the last layer with weights if
            `None`.

    Returns:
        (n1, n2).

    Raises:
        InputError: a layer that the network has not, or does not use exactly once.
    """
    module, take_input = _feature_layer(model, layer)
    a = _features(model, module, take_input, x1)
    b = a if x2 is None else _features(model, module, take_input, x2)
    return a @ b.T / a.shape[1]


def _by_jacobians(model: nn.Module, x1: Tensor, x2: Tensor | None, chosen: range, trace: bool, size: int) -> Tensor:
    def jacobians(x: Tensor) -> list[Tensor]:
        found = per_example_jacobians(model, x, lambda out: out.reshape(-1)[chosen.start : chosen.stop], chunk=size)
        return [part.flatten(2) for part in found.values()]

    def product(a: list[Tensor], b: list[Tensor]) -> Tensor:
        pattern = "iap,jap->ij" if trace else "iap,jbp->ijab"
        return torch.stack([torch.einsum(pattern, p, q) for p, q in zip(a, b, strict=True)]).sum(0)

    rows, columns = x1.split(size), (x1 if x2 is None else x2).split(size)
    kept = jacobians(columns[0]) if len(columns) == 1 else None
    lines: list[Tensor] = []
    for i, some in enumerate(rows):
        left = kept if x2 is None and kept is not None else jacobians(some)
        line = []
        for j, others in enumerate(columns):
            if x2 is None and j < i:  # symmetric: taken from the line above
                above = lines[j].split([len(part) for part in columns], dim=1)[i]
                line.append(above.transpose(0, 1) if trace else above.permute(1, 0, 3, 2))
            elif x2 is None and j == i:
                line.append(product(left, left))
            else:
                line.append(product(left, kept if kept is not None else jacobians(others)))
        lines.append(torch.cat(line, 1))
    result = torch.cat(lines)
    return result / len(chosen) if trace else result


def _shaped(kernel: Tensor, outputs: Outputs) -> Tensor:
    return kernel[..., 0, 0] if isinstance(outputs, int) else kernel


def _output_count(model: nn.Module, x: Tensor) -> int:
    with unchanged(model), torch.no_grad():
        out = model(x)
    if not isinstance(out, Tensor) or out.ndim > 2 or len(out) != 1:
        raise InputError("the model must give one row of outputs (N, C) for each example")
    return out.numel()


def _feature_layer(model: nn.Module, layer: nn.Module | str | None) -> tuple[nn.Module, bool]:
    if layer is None:
        weighted = [m for m in model.modules() if any(p.ndim >= 2 for p in m.parameters(recurse=False))]
        if not weighted:
            raise InputError("the model has no layer with weights")
        return weighted[-1], True
    named = dict(model.named_modules())
    if isinstance(layer, str):
        if layer not in named:
            raise InputError(f"the model has no layer {layer!r}; its layers are {', '.join(list(named)[1:9])} ...")
        return named[layer], False
    if all(layer is not module for module in named.values()):
        raise InputError(f"this {type(layer).__name__} is not part of the model")
    return layer, False


def _features(model: nn.Module, module: nn.Module, take_input: bool, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = module.register_forward_hook(
        lambda _, inputs, out: seen.append((inputs[0] if take_input else out).flatten(1).clone())
    )
    try:
        with unchanged(model), torch.no_grad():
            model.eval()
            for count, rows in enumerate(x.split(rows_at_once(x)), start=1):
                model(suited(model, rows))
                if len(seen) != count:
                    raise InputError("the network must use this layer once in a pass")
    finally:
        hook.remove()
    return torch.cat(seen)
