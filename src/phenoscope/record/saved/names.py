"""What the weights of a checkpoint mean: under the model's names and with its axes, or as they stand."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, nn

from ...core.errors import InputError
from ..layers import Layer, clean_name, find_layers, unwrap
from .find import Checkpoint, read_checkpoint

Weights = dict[str, Tensor]


class Source:
    """What the weights in a checkpoint mean: by the model's names and axes, or as they stand."""

    def __init__(self, model: nn.Module | None) -> None:
        self._layers: list[Layer] | None = None
        if model is None:
            return
        found, pending = find_layers(model)
        if pending:
            raise InputError(f"layer {pending[0]!r} of the model has no shape yet: run one batch through it first")
        if not found:
            raise InputError(f"{type(unwrap(model)).__name__} has no layers with filters")
        self._layers = [each.layer for each in found]
        shared: dict[int, list[str]] = {}
        for name, tensor in unwrap(model).named_parameters(remove_duplicate=False):
            shared.setdefault(id(tensor), []).append(clean_name(name))
        self._shared = list(shared.values())
        self._names = {clean_name(name) for name in unwrap(model).state_dict()}.union(*self._shared)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        return self.named(checkpoint, read_checkpoint(checkpoint).weights)

    def named(self, checkpoint: Checkpoint, weights: Weights) -> Weights:
        """The model's weights under its own names, or all without a `module.` that stands before all of them."""
        if self._layers is None:
            prefix = "module." if all(name.startswith("module.") for name in weights) else ""
            return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        prefix = _prefix(weights, self._names)
        own = {name: weights[prefix + name] for name in self._names if prefix + name in weights}
        for names in self._shared:  # formats that keep a shared tensor once may keep it under any of its names
            tensor = next((own[name] for name in names if name in own), None)
            if tensor is not None:
                own |= {name: tensor for name in names if name not in own}
        return own

    def layers(self, weights: Weights) -> list[Layer]:
        return _assumed_layers(weights) if self._layers is None else self._layers

    def check(self, checkpoint: Checkpoint, weights: Weights, first: Weights) -> None:
        """Raise an `InputError` unless every layer is there, with the shape and dtype of the first checkpoint."""
        layers, path = self.layers(first), checkpoint.path
        if not layers:
            raise InputError(f"{path} holds no floating-point tensor of two or more dimensions")
        for layer in layers:
            name = layer.parameter
            if name not in weights:
                raise InputError(f"{path} lacks the weight {name!r}" + (" of the model" if self._layers else ""))
            if tuple(weights[name].shape) != layer.shape:
                other = "the model" if self._layers else "the first checkpoint"
                raise InputError(
                    f"{path} holds {name!r} in shape {tuple(weights[name].shape)}; {other} has {layer.shape}"
                )
            if weights[name].dtype != first[name].dtype or not weights[name].is_floating_point():
                raise InputError(f"{path} holds {name!r} as {weights[name].dtype} and the first checkpoint as "
                                 f"{first[name].dtype}: all must have the same floating-point type")  # fmt: skip
        new = {layer.parameter for layer in self.layers(weights)} - {layer.parameter for layer in layers}
        if new:
            raise InputError(f"{path} holds {min(new)!r}, which the first checkpoint lacks")


def _prefix(names: Weights, own: set[str]) -> str:
    """What stands before most of the model's names in a checkpoint: "", "model.", "module.net." ..."""
    seen: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in own:
                seen["".join(part + "." for part in parts[:cut])] += 1
    return max(seen, key=lambda prefix: (seen[prefix], -len(prefix)), default="")


def _assumed_layers(weights: Weights) -> list[Layer]:
    """A layer for every floating-point tensor of two or more dimensions: filters on 0, channels on 1."""
    layers = []
    for parameter, tensor in weights.items():
        if tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel():
            name = parameter.removesuffix(".weight")
            bias = f"{name}.bias"
            has_bias = bias in weights and weights[bias].shape == tensor.shape[:1]
            layers.append(Layer(
                name=parameter if name in weights else name, parameter=parameter, kind="Tensor",
                shape=tuple(tensor.shape), bias=bias if has_bias else None,
            ))  # fmt: skip
    return layers
