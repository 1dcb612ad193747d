"""The kinds of layers that have filters: one function each, from a module to how its filters lie in its weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from .experts import are_experts, expert_axes
from .heads import head_count, projections
from .layers import Found, Layer


@dataclasses.dataclass(frozen=True)
class Context:
    """What a kind's function may ask about the module that it describes."""

    model: nn.Module
    path: str
    name: str
    module: nn.Module
    heads: Mapping[str, int]
    used: set[str]

    def heads_by_pattern(self) -> int | None:
        for pattern, count in self.heads.items():
            if fnmatchcase(self.name, pattern):
                self.used.add(pattern)
                return int(count)
        return None

    def stored(self, attribute: str) -> tuple[str, nn.Module, str] | None:
        """Where a weight is stored: its name, owner and key. A parametrization or weight norm computes from there."""
        module = self.module
        parametrized = getattr(module, "parametrizations", None)
        if parametrized is not None and attribute in parametrized:
            stored = list(parametrized[attribute].named_parameters(recurse=False))
            shape = max((p.shape for _, p in stored), key=lambda s: (len(s), s.numel()), default=None)
            for key, tensor in reversed(stored):
                if tensor.shape == shape:
                    return f"parametrizations.{attribute}.{key}", parametrized[attribute], key
            return None
        for key in (attribute, f"{attribute}_orig", f"{attribute}_v"):
            if module._parameters.get(key) is not None:
                return key, module, key
        return None

    def layer(self, attribute: str = "weight", bias: str = "bias", **fields: Any) -> list[Found]:
        """The layer of a weight of this module, or nothing if the module has no such weight."""
        stored = self.stored(attribute)
        if stored is None:
            return []
        name, owner, key = stored
        tensor = owner._parameters[key]
        assert tensor is not None
        prefix = f"{self.name}." if self.name else ""
        lazy = nn.parameter.is_lazy(tensor)
        own = self.module._parameters.get(bias)
        values: dict[str, Any] = {
            "name": self.name or key,
            "parameter": prefix + name,
            "kind": type(self.module).__name__,
            "shape": () if lazy else tuple(tensor.shape),
            "trainable": tensor.requires_grad,
            "bias": prefix + bias if own is not None else None,
        }
        return [Found(Layer(**(values | fields)), tensor, owner, key)]


def _convolution(at: Context) -> list[Found]:
    module: Any = at.module
    settings = {
        "stride": tuple(module.stride),
        "padding": module.padding if isinstance(module.padding, str) else tuple(module.padding),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }
    axes = {"filters": 1, "channels": 0, "groups": module.groups} if module.transposed else {}
    return at.layer(settings=settings, **axes)


def _linear(at: Context) -> list[Found]:
    return _split(at, at.layer())


def _input_major_linear(at: Context) -> list[Found]:
    """GPT-2's `Conv1D` of transformers: a linear layer whose weight is stored (in, out)."""
    return _split(at, at.layer(filters=1, channels=0))


def _split(at: Context, whole: list[Found]) -> list[Found]:
    """An attention projection by heads; any other linear layer as it is."""
    explicit = at.heads_by_pattern()
    if not whole or not whole[0].layer.shape:
        return whole
    layer = whole[0].layer
    parts = []
    for part in projections(at.model, at.path, layer.shape[layer.filters], layer.shape[layer.channels], explicit):
        name = f"{layer.name}.{part.letter}" if part.letter else layer.name
        split = dataclasses.replace(layer, name=name, rows=part.rows, heads=part.heads, interleaved=part.interleaved)
        parts.append(whole[0]._replace(layer=split))
    return parts


def _multihead_attention(at: Context) -> list[Found]:
    module: Any = at.module
    heads = at.heads_by_pattern() or head_count(module) or 0
    size = module.embed_dim
    parts: list[Found] = []
    for index, letter in enumerate("qkv"):
        name = f"{at.name}.{letter}" if at.name else letter
        rows = (index * size, (index + 1) * size)
        if module._qkv_same_embed_dim:
            parts += at.layer("in_proj_weight", "in_proj_bias", name=name, heads=heads, rows=rows)
        else:  # three weights, but still one bias for all
            parts += at.layer(f"{letter}_proj_weight", "in_proj_bias", name=name, heads=heads, bias_rows=rows)
    return parts


def _embedding(at: Context) -> list[Found]:
    return at.layer()


def _experts(at: Context) -> list[Found]:
    """The experts of a mixture whose weights lie in one parameter (experts, ...): every expert a layer of its own."""
    found = []
    for key, weight in at.module._parameters.items():
        if weight is not None and not nn.parameter.is_lazy(weight) and weight.ndim == 3:
            filters, channels = expert_axes(at.module, key, tuple(weight.shape))
            for expert in range(weight.shape[0]):  # named as where each expert is a module: experts.3.down_proj
                name = f"{at.name}.{expert}.{key}" if at.name else f"{expert}.{key}"
                axes = {"filters": filters, "channels": channels, "expert": expert}
                found += at.layer(key, f"{key}_bias", name=name, **axes)
    return sorted(found, key=lambda each: each.layer.expert or 0)


def _is_input_major_linear(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, nn.Conv1d)


# A kind is a test and a function from a Context to its layers. The first test that holds decides.
KINDS: list[tuple[Callable[[nn.Module], bool], Callable[[Context], list[Found]]]] = [
    (lambda m: isinstance(m, nn.MultiheadAttention), _multihead_attention),
    (lambda m: isinstance(m, nn.modules.conv._ConvNd), _convolution),
    (lambda m: isinstance(m, nn.Linear), _linear),
    (_is_input_major_linear, _input_major_linear),
    (lambda m: isinstance(m, nn.Embedding), _embedding),
    (are_experts, _experts),
]


def kind_of(module: nn.Module, embeddings: bool) -> Callable[[Context], list[Found]] | None:
    for test, describe in KINDS:
        if test(module):
            return describe if embeddings or describe is not _embedding else None
    return None
