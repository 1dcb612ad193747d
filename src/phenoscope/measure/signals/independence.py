"""Whether the weights of backpropagation act as if they were independent of those of the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ... import stats, train
from ...core.errors import InputError
from ...core.random import child_seeds, seeded
from ...core.taps import layers, suited
from ...models.ntk import NTKLinear

if TYPE_CHECKING:
    import xarray

_AFFINE = (nn.Linear, NTKLinear, nn.modules.conv._ConvNd)
_TOLERANCE = 0.05


def gradient_independence(
    make_model: Callable[..., nn.Module],
    x: Tensor,
    *,
    readout: Literal["random", "mean"] = "random",
    repeats: int = 20,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Gradients through a network's own weights against gradients through weights that are drawn anew.

    Mean-field theory and tangent kernels take the transposed weights of the backward pass as independent of the forward
    pass. That is right, at large width, if the readout is random, of mean zero and not used elsewhere, and can be
    wrong otherwise, as for a mean over units (Yang, "Scaling limits of wide neural networks with weight sharing",
    2019). Here networks are drawn, the last layer is replaced by the readout, L = sum over inputs of v . h, and
    |dL/dh|^2 is taken at the input h of every linear or convolutional layer, twice: through the weights themselves, and
    with each layer's weights, in the backward pass alone, those of another draw of the network. A layer that is used
    many times has one other draw for all uses.

    Args:
        make_model: network factory, called by `train.build`. Its weights, apart from embeddings, stand in linear and
            convolutional layers; the last of these in the network is its readout.
        x: (N, ...) inputs, where the networks are to be.
        readout: v ~ N(0, 1 / n), or "mean": v = 1 / sqrt(n) everywhere.
        repeats: how many networks.
        generator: seeds networks and readouts.

    Returns:
        `true` and `independent`, the squared norms, over (`layer`, `repeat`); `ratio`, the mean of their ratios, with
        its 95 % interval `low` and `high`, over `layer`; `holds`, whether every interval has values within 5 % of 1. A
        layer is a use of weights that gradients with respect to its input pass through, in the order of the forward
        pass: "name", or "name[2]" for the third use. Layers that the inputs enter, and the readout, are left out.

    Raises:
        InputError: another readout, a network with weights in other layers, or without two layers of weights between
            inputs and readout.
    """
    import xarray

    if readout not in ("random", "mean"):
        raise InputError(f'readout must be "random" or "mean", not {readout!r}')
    if repeats < 2:
        raise InputError(f"an interval needs at least 2 repeats, not {repeats}")
    if x.ndim < 2 or not len(x):
        raise InputError(f"inputs (N, ...) are needed, not of shape {tuple(x.shape)}")
    rows = []
    names: list[str] = []
    for seed in child_seeds(generator, repeats):
        own, other, draws = child_seeds(seed, 3)
        network, twin = (
            train.build(make_model, shape=x.shape[1:], num_classes=2, generator=each).to(x.device).eval()
            for each in (own, other)
        )
        found = [_squared_gradients(network, borrowed, x, readout, draws) for borrowed in (None, twin)]
        names = list(found[0])
        rows.append([[float(part[name]) for name in names] for part in found])
    true, independent = torch.tensor(rows, dtype=torch.float64).permute(1, 2, 0).numpy()
    ratios = true / independent
    intervals = [stats.bootstrap(of_layer, generator=0) for of_layer in ratios]
    holds = all(each.low <= 1 + _TOLERANCE and each.high >= 1 - _TOLERANCE for each in intervals)
    return xarray.Dataset(
        {
            "true": (("layer", "repeat"), true),
            "independent": (("layer", "repeat"), independent),
            "ratio": ("layer", [each.estimate for each in intervals]),
            "low": ("layer", [each.low for each in intervals]),
            "high": ("layer", [each.high for each in intervals]),
            "holds": holds,
        },
        {"layer": names, "repeat": range(repeats)},
    )


def _squared_gradients(
    network: nn.Module, twin: nn.Module | None, x: Tensor, readout: str, seed: int
) -> dict[str, Tensor]:
    """|dL/dh|^2 at the input of every use of a hidden layer; backward through the twin's weights if there is one."""
    with _uses(network, twin) as (uses, ends), torch.enable_grad():
        network(suited(network, x))
    if len(ends) != 1:
        raise InputError(f"the last layer with weights was used {len(ends)} times in a pass; it must be the readout")
    features = ends[0]
    v = torch.ones(features.shape[-1])
    if readout == "random":
        v = torch.randn(features.shape[-1], generator=seeded(seed))
    inner = {name: h for name, h in uses.items() if h.requires_grad}
    if not inner or not features.requires_grad:
        raise InputError("the network needs two layers of weights or more between its inputs and its readout")
    loss = (features @ (v / len(v) ** 0.5).to(features)).sum()
    gradients = torch.autograd.grad(loss, list(inner.values()), materialize_grads=True)
    return {name: part.double().square().sum() for name, part in zip(inner, gradients, strict=True)}


@contextmanager
def _uses(network: nn.Module, twin: nn.Module | None) -> Iterator[tuple[dict[str, Tensor], list[Tensor]]]:
    """The inputs of every use of hidden layers in a pass, by name, and of the readout; with borrowed weights if any."""
    weighted = {name: module for name, module in layers(network).items() if not isinstance(module, nn.Embedding)}
    for name, module in weighted.items():
        if not isinstance(module, _AFFINE):
            raise InputError(
                f"{name or 'the model'} is a {type(module).__name__}: weights must stand in linear or convolutional "
                "layers, whose backward pass can be given others"
            )
    if len(weighted) < 2:
        raise InputError("the network needs two layers of weights or more before its readout")
    if isinstance(list(weighted.values())[-1], nn.modules.conv._ConvNd):
        raise InputError(f"the last layer with weights, {list(weighted)[-1]}, is the readout; it must be linear")
    inputs: dict[str, Tensor] = {}
    ends: list[Tensor] = []
    counts = dict.fromkeys(weighted, 0)
    *hidden, last = weighted

    def watch(name: str) -> Callable[..., Any]:
        other = None if twin is None else twin.get_submodule(name)

        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if name == last:
                ends.append(given[0])
                return None
            inputs[f"{name}[{counts[name]}]"] = given[0]
            counts[name] += 1
            return None if other is None else _Borrowed.apply(output.detach(), other(given[0]))

        return hook

    with ExitStack() as stack:
        for name in (*hidden, last):
            stack.callback(weighted[name].register_forward_hook(watch(name)).remove)
        yield inputs, ends
    once = {name for name, count in counts.items() if count == 1}
    for key in list(inputs):  # a layer that is used once needs no number; order stays
        name = key.rpartition("[")[0]
        inputs[name if name in once else key] = inputs.pop(key)


class _Borrowed(torch.autograd.Function):
    """The first argument's values; gradients go to the second."""

    @staticmethod
    def forward(ctx: Any, true: Tensor, _: Tensor) -> Tensor:
        return true.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]
