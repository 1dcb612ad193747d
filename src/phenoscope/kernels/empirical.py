"""Kernels of a network as it stands: the tangent kernel of its gradients, and the Gram matrix of its features."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.gradients import per_example_only
from ..core.guard import unchanged
from ..core.parameters import parameter_dict
from ..core.taps import rows_at_once, suited
from .tangent.choose import tangents
from .tangent.features import Features
from .tangent.spread import Engine, on_engine
from .tangent.store import identity_of, to_disk
from .tangent.tiles import full_precision, memory_or_default

if TYPE_CHECKING:
    import zarr

Outputs = Literal["full", "trace"] | int
Method = Literal["auto", "layers", "jacobian", "products"]
Progress = Callable[[int, int], object]
_METHODS = "auto", "layers", "jacobian", "products"
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)


@overload
def empirical_ntk(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, outputs: Outputs = "full", method: Method = "auto",
    chunk: int | None = None, memory: int | None = None, out: None = None, progress: Progress | None = None,
) -> Tensor: ...  # fmt: skip


@overload
def empirical_ntk(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, outputs: Outputs = "full", method: Method = "auto",
    chunk: int | None = None, memory: int | None = None, out: str | Path, engine: Engine | None = None,
    jobs: int | None = None, progress: Progress | None = None,
) -> zarr.Array: ...  # fmt: skip


def empirical_ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    outputs: Outputs = "full",
    method: Method = "auto",
    chunk: int | None = None,
    memory: int | None = None,
    out: str | Path | None = None,
    engine: Engine | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Tensor | zarr.Array:
    """The tangent kernel Theta_ij^ab = sum_p df_a(x_i)/dp df_b(x_j)/dp (Jacot, Gabriel and Hongler, NeurIPS 2018).

    Exact, over all parameters that require gradients, in the model's dtype without TF32. The methods differ in cost
    (Novak, Sohl-Dickstein and Schoenholz, ICML 2022, compare them):

    - "layers": where y = W u at L positions (linear layers, convolutions, embeddings), the gradient of an example is
      g u^T, summed over positions, of what the layer took in and the derivative by what it gave. Products come from
      (u_l . u_m) (g_l . g_m) at all pairs of positions, or from the g u^T of single examples, whichever costs less:
      for W of O x K and C outputs L^2 (K + C O) against C O K multiplications a pair and C O K L an example; where
      outputs are kept apart L^2 (K + C O) + L C^2 O against C^2 O K. Norms' factors and shifts have small gradients,
      which are formed. Every layer is tried on two examples against plain derivatives; parameters for which there is
      no rule, or whose rule fails the trial, take the next way, alone.
    - "jacobian": the derivatives of all examples by all parameters, contracted.
    - "products": for every output of every example of the right side a pass back and a pass forward with derivatives.
      It needs the least memory.

    "auto" takes layers, or products where these need fewer multiplications: large embeddings, for instance.

    Args:
        model: from a batch to outputs (N, C); in evaluation mode if it has dropout or batch normalization.
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`, and then half of the kernel is computed.
        outputs: "full", "trace" for the mean over outputs of Theta^aa, or the number of one output.
        method: how to compute it.
        chunk: examples of either side in a block; as many as `memory` holds if `None`.
        memory: bytes for what is kept and made on the way, besides the network and the kernel; if `None` 256
            megabytes, or a quarter of a CUDA device.
        out: a folder. The kernel then goes there block by block as a zarr array. The same call made again does the
            blocks that are missing, of whatever became of the first.
        engine: what does the blocks where `out` is given: "local" processes, a "ray" cluster whose machines all see
            that folder, or the `lab` of an experiment. This process if `None`.
        jobs: processes at once of the engine; one a core, or one a CUDA device, if `None`.
        progress: called as `progress(done, total)` with numbers of blocks.

    Returns:
        (n1, n2, C, C), or (n1, n2) for "trace" and one output; in the model's dtype. A zarr array of this shape where
        `out` is given, which `kernels.load` reads into memory.

    Raises:
        InputError: a network in which examples of a batch act on one another or that is random, an output that there is
            not, "layers" for a network that has none that suits, or a folder that holds something else.

    Examples:
        >>> empirical_ntk(nn.Linear(2, 1), torch.eye(2), outputs="trace").tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """
    _check(model, x1, x2, method)
    count = _output_count(model, x1[:1])
    if not (outputs in ("full", "trace") or (isinstance(outputs, int) and 0 <= outputs < count)):
        raise InputError(f'outputs must be "full", "trace" or a number from 0 to {count - 1}, not {outputs!r}')
    if out is None and engine is not None:
        raise InputError("an engine's processes write to disk: say where with out=")
    chosen = range(count) if isinstance(outputs, str) else range(outputs, outputs + 1)
    settings: dict[str, Any] = {
        "count": count, "chosen": chosen, "full": outputs == "full", "method": method,
        "memory": memory_or_default(model, memory), "chunk": rows_at_once(x1, chunk) if chunk is not None else None,
    }  # fmt: skip
    with full_precision(), unchanged(model):
        make = tangents(model, x1, x2, **settings)
        if out is None:
            return make.whole(progress)
        spread = None
        if engine is not None:
            spread = functools.partial(on_engine, Path(out), model, make, settings, engine, jobs)
        identity = identity_of(model, x1, x2, kind="empirical_ntk", outputs=outputs)
        return to_disk(Path(out), make, identity, progress=progress, spread=spread)


@overload
def empirical_nngp(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, layer: nn.Module | str | None = None,
    memory: int | None = None, out: None = None, progress: Progress | None = None,
) -> Tensor: ...  # fmt: skip


@overload
def empirical_nngp(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, layer: nn.Module | str | None = None,
    memory: int | None = None, out: str | Path, progress: Progress | None = None,
) -> zarr.Array: ...  # fmt: skip


def empirical_nngp(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    memory: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Tensor | zarr.Array:
    """The Gram matrix of a network's features, K_ij = h(x_i) . h(x_j) / n: its finite-width NNGP kernel.

    The last layer's outputs have this covariance over draws of its weights, up to their variance, and the bias's (Lee,
    Bahri, Novak et al., ICLR 2018).

    Args:
        model: from a batch to outputs.
        x1: (n1, ...) inputs.
        x2: (n2, ...) inputs; `x1` if `None`.
        layer: a module, or its dotted name, whose output is taken as h; the input of the last layer with weights if
            `None`.
        memory: bytes for features; if `None` 256 megabytes, or a quarter of a CUDA device.
        out: a folder for the kernel, block by block, as in `empirical_ntk`.
        progress: called as `progress(done, total)` with numbers of blocks.

    Returns:
        (n1, n2); a zarr array where `out` is given.

    Raises:
        InputError: a layer that the network has not, or does not use exactly once, or a folder that holds something
            else.
    """
    module, take_input = _feature_layer(model, layer)
    if not len(x1) or (x2 is not None and not len(x2)):
        raise InputError("a kernel needs at least one example on either side")
    with full_precision():
        make = Features(model, module, take_input, x1, x2, memory_or_default(model, memory))
        if out is None:
            return make.whole(progress)
        name = next(name for name, each in model.named_modules() if each is module)
        identity = identity_of(model, x1, x2, kind="empirical_nngp", layer=name, inputs=take_input)
        return to_disk(Path(out), make, identity, progress=progress)


def _check(model: nn.Module, x1: Tensor, x2: Tensor | None, method: str) -> None:
    per_example_only(model)
    for name, module in model.named_modules():
        if isinstance(module, _RANDOM) and module.training:
            raise InputError(f"{name or 'the model'} is random in training: call model.eval() first")
    if method not in _METHODS:
        raise InputError(f"method must be one of {', '.join(_METHODS)}, not {method!r}")
    if not len(x1) or (x2 is not None and not len(x2)):
        raise InputError("a kernel needs at least one example on either side")
    parameter_dict(model)  # refuses a network without trainable parameters


def _output_count(model: nn.Module, x: Tensor) -> int:
    with unchanged(model), torch.no_grad():
        out = model(suited(model, x))
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
