"""Read or replace what a layer puts out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .guard import unchanged

Layer = nn.Module | str
_ELEMENTS = 2**21  # input numbers in a pass: 680 images of 32x32 in color, 14 of 224x224
_ROWS = 1024
_NOT_ONCE = "the layer was called {} times in a pass; choose one that is called once"


class Tapped:
    """What a layer put out in every call since the tap was opened.

    Attributes:
        outputs: one entry a call, with its graph where there is one; what `replace` gave, where there is a replacement.
    """

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    @property
    def output(self) -> Tensor:
        """The output of the only call; of several outputs (a GRU's, say) the first.

        Raises:
            InputError: the layer was called never or more than once.
        """
        if len(self.outputs) != 1:
            raise InputError(
                f"the layer was called {len(self.outputs)} times in a pass; choose one that is called once"
            )
        return _first(self.outputs[0])


@contextmanager
def tap(model: nn.Module, layer: Layer, *, replace: Tensor | Callable[[Any], Any] | None = None) -> Iterator[Tapped]:
    """Keep what a layer puts out as long as the context is open, and replace it if asked to.

    Args:
        model: the network.
        layer: a module of it, or its dotted name.
        replace: a tensor, or a function of the layer's output, that stands in for the output.

    Returns:
        A context whose value collects the outputs.

    Raises:
        InputError: no such layer.

    Examples:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tap(net, "0", replace=torch.ones(1, 3)) as tapped:
        ...     net(torch.zeros(1, 2))
        tensor([[1., 1., 1.]])
    """
    _, module = _find(model, layer)
    tapped = Tapped()

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if replace is not None:
            new = replace if isinstance(replace, Tensor) else replace(output)
            output = (new, *output[1:]) if isinstance(output, tuple) and isinstance(new, Tensor) else new
        tapped.outputs.append(output)
        return output

    handle = module.register_forward_hook(hook)
    try:
        yield tapped
    finally:
        handle.remove()


def activations(model: nn.Module, x: Tensor, layer: Layer, *, chunk: int | None = None) -> Tensor:
    """What a layer puts out for a batch, in evaluation mode and without a graph.

    Args:
        model: the network; it is left as it was found.
        x: inputs (N, ...), on any device.
        layer: a module of the network, or its dotted name.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        Outputs (N, ...) of the layer, on the model's device; the first of them where it has several.

    Raises:
        InputError: no such layer, one that is not called exactly once in a pass, or no inputs.
    """
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"x needs at least one example; its shape is {tuple(x.shape)}")
    parts = []

    def kept(output: Any) -> Any:
        parts.append(_first(output).clone())  # what comes next may work in place
        return output

    with unchanged(model), torch.no_grad():
        model.eval()
        for count, rows in enumerate(x.split(rows_at_once(x, chunk)), start=1):
            with tap(model, layer, replace=kept):
                model(suited(model, rows))
            if len(parts) != count:
                raise InputError(_NOT_ONCE.format(len(parts) + 1 - count))
    return torch.cat(parts)


def layers(
    model: nn.Module, names: Layer | int | type[nn.Module] | Sequence[Layer | int | type[nn.Module]] | None = None
) -> dict[str, nn.Module]:
    """Layers of a network by their dotted names, in network order.

    Args:
        model: the network.
        names: `None` for all that have weights of two or more dimensions of their own; else a name, a module, a type,
            a place among those with weights (-1 is the last), or a sequence of these.

    Raises:
        InputError: one that the network does not have.

    Examples:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(layers(net)), list(layers(net, nn.ReLU)), list(layers(net, -1))
        (['0', '2'], ['1'], ['2'])
    """
    weighted = {
        name: module
        for name, module in model.named_modules()
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    }
    if names is None:
        return weighted
    chosen: set[str] = set()
    for wanted in names if isinstance(names, Sequence) and not isinstance(names, str) else [names]:
        if isinstance(wanted, type):
            found = [name for name, module in model.named_modules() if isinstance(module, wanted)]
            if not found:
                raise InputError(f"the network has no layer of type {wanted.__name__}")
            chosen.update(found)
        elif isinstance(wanted, int):
            if not -len(weighted) <= wanted < len(weighted):
                raise InputError(f"the network has {len(weighted)} layers with weights; there is no layer {wanted}")
            chosen.add(list(weighted)[wanted])
        else:
            chosen.add(_find(model, wanted)[0])
    return {name: module for name, module in model.named_modules() if name in chosen}


def suited(model: nn.Module, x: Tensor) -> Tensor:
    """Inputs on the model's device and, if they are real numbers, in its dtype."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return x
    return x.to(parameter.device, parameter.dtype) if x.is_floating_point() else x.to(parameter.device)


def rows_at_once(x: Tensor, chunk: int | None = None) -> int:
    """How many rows of `x` go through a network together.

    Raises:
        InputError: a chunk under 1.
    """
    if chunk is None:
        return max(1, min(_ROWS, _ELEMENTS // max(1, x[:1].numel())))
    if chunk < 1:
        raise InputError(f"a chunk has at least 1 example, not {chunk}")
    return chunk


def _find(model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    for name, module in model.named_modules():
        if module is layer or (isinstance(layer, str) and name == layer):
            return name, module
    known = ", ".join(repr(name) for name, _ in list(model.named_modules())[1:9])
    shown = repr(layer) if isinstance(layer, str) else f"this {type(layer).__name__}"
    raise InputError(f"the network has no layer {shown}; it has {known}, ...")


def _first(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise InputError(f"the layer puts out a {type(output).__name__}, not a tensor")
    return output
