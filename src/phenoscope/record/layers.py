"""Which weights of a network are filters, and how they lie in their tensors.

Every kind of layer is brought to one form: a view of its weight with the axes (group, filter, channel, entries...).
A new kind is one function in `KINDS`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from ..core.errors import InputError
from .heads import head_count, projections

# What torch's own wrappers put into module names: torch.compile, activation checkpointing, FSDP1.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


@dataclasses.dataclass(frozen=True)
class Layer:
    """How the filters of one layer lie in its weight.

    Attributes:
        name: the module's dotted name; a part of a fused projection adds `.q`, `.k` or `.v`.
        parameter: the weight's name in the state dict.
        kind: the module's class.
        shape: the weight's shape.
        filters, channels: axes of the weight that count filters and channels.
        groups: how many groups the channel axis is cut into, where that axis comes first (transposed convolution).
        rows: which part `[start, stop)` of the filter axis belongs to this layer; `None` is all.
        heads: 0, or how many filters of equally many rows that part makes.
        interleaved: `(parts, part)` where every head holds the rows of q, k and v together.
        trainable: whether any gradient was asked for when recording began.
        bias: the bias's name in the state dict, if there is one.
        bias_rows: which part of the bias belongs to this layer, where that is not `rows`.
        settings: stride, padding, dilation and groups of a convolution.
    """

    name: str
    parameter: str
    kind: str
    shape: tuple[int, ...]
    filters: int = 0
    channels: int = 1
    groups: int = 1
    rows: tuple[int, int] | None = None
    heads: int = 0
    interleaved: tuple[int, int] | None = None
    trainable: bool = True
    bias: str | None = None
    bias_rows: tuple[int, int] | None = None
    settings: Mapping[str, Any] | None = None

    def blocks(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as a view of shape (groups, filters of a group, channels, *entries)."""
        view = weight.movedim((self.filters, self.channels), (0, 1))
        view = self._rows(view, self.rows)
        if self.groups > 1 and self.channels == 0:
            return view.unflatten(1, (self.groups, -1)).movedim(1, 0)
        return view[None]

    def rows_of(self, bias: torch.Tensor) -> torch.Tensor:
        """The bias as a view of shape (filters, entries of a filter)."""
        rows = self.bias_rows or self.rows
        return self._rows(bias[:, None], rows).flatten(1)

    def _rows(self, view: torch.Tensor, rows: tuple[int, int] | None) -> torch.Tensor:
        if rows is not None:
            view = view[slice(*rows)]
        if self.interleaved is not None:
            parts, part = self.interleaved
            return view.unflatten(0, (self.heads, parts, -1))[:, part].movedim(1, -1)
        return view.unflatten(0, (self.heads, -1)).movedim(1, -1) if self.heads else view

    def __len__(self) -> int:
        return self._form[0] * self._form[1]

    @property
    def entries(self) -> tuple[int, int]:
        """Channels of a filter (C), entries of a channel (W H)."""
        return self._form[2], self._form[3]

    @property
    def _form(self) -> tuple[int, int, int, int]:
        groups, filters, channels, *rest = self.blocks(torch.empty(self.shape, device="meta")).shape
        size = 1
        for length in rest:
            size *= length
        return groups, filters, channels, size

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Layer:
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known}
        return cls(**values)


def clean_name(name: str) -> str:
    """A module or parameter name without what torch.compile, checkpointing and FSDP put into it."""
    return _WRAPPERS.sub("", name)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


class Found(NamedTuple):
    """A layer in a live network: its weight, and the place where the network keeps it."""

    layer: Layer
    weight: torch.Tensor
    owner: nn.Module
    key: str

    def current(self) -> torch.Tensor:
        """The weight that stands in that place now."""
        return self.owner._parameters.get(self.key) if self.key in self.owner._parameters else self.weight  # type: ignore[return-value]


def find_layers(
    model: nn.Module, *, heads: Mapping[str, int] | None = None, embeddings: bool = False
) -> tuple[list[Found], list[str]]:
    """The layers of a network that have filters, each with its weight, in the order of its modules.

    A weight that several modules share comes once, under the first name. Weights that a lazy module has not made yet
    are named in the second list.

    Args:
        heads: how many heads the projections that match a pattern have: {pattern: n}; overrules what modules say.
        embeddings: whether the rows of an `nn.Embedding` are filters, too.

    Raises:
        InputError: a pattern of `heads` that matches nothing, or a number that does not divide the rows.
    """
    model = unwrap(model)
    found: list[Found] = []
    pending: list[str] = []
    seen: set[int] = set()
    used: set[str] = set()
    for raw, module in model.named_modules():
        name = clean_name(raw)
        describe = _kind_of(module, embeddings)
        if describe is None:
            continue
        context = Context(model, raw, name, module, heads or {}, used)
        for each in describe(context):
            if nn.parameter.is_lazy(each.weight):
                pending.append(each.layer.name)
            elif each.weight.is_floating_point() and each.weight.numel() and id(each.weight) not in seen:
                found.append(each)
        seen.update(id(each.weight) for each in found)
    unused = set(heads or {}) - used
    if unused:
        raise InputError(f"heads= names {sorted(unused)[0]!r}, which matches no projection of this model")
    return found, pending


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


def _is_input_major_linear(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, nn.Conv1d)


# A kind is a test and a function from a Context to its layers. The first test that holds decides.
KINDS: list[tuple[Callable[[nn.Module], bool], Callable[[Context], list[Found]]]] = [
    (lambda m: isinstance(m, nn.MultiheadAttention), _multihead_attention),
    (lambda m: isinstance(m, nn.modules.conv._ConvNd), _convolution),
    (lambda m: isinstance(m, nn.Linear), _linear),
    (_is_input_major_linear, _input_major_linear),
    (lambda m: isinstance(m, nn.Embedding), _embedding),
]


def _kind_of(module: nn.Module, embeddings: bool) -> Callable[[Context], list[Found]] | None:
    for test, describe in KINDS:
        if test(module):
            return describe if embeddings or describe is not _embedding else None
    return None
